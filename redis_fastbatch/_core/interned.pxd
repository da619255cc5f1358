# cython: language_level=3
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

cdef enum:
    TEXT_SLOTS = 512
    KEY_SLOTS = 512
    FLOAT_SLOTS = 512

cdef struct TextSlot:
    uint64_t head
    uint64_t tail
    Py_ssize_t size
    PyObject* text

cdef struct FloatSlot:
    uint64_t bits
    PyObject* number


cdef class ShortTexts:
    """One str object for equal short texts."""

    cdef TextSlot slots[TEXT_SLOTS]
    cdef unsigned int looked_up
    cdef unsigned int found
    cdef unsigned int resting

    cdef object get(self, const char* text, Py_ssize_t size)


cdef class Keys:
    """One str object, its hash computed, for equal map keys."""

    cdef PyObject* slots[KEY_SLOTS]

    cdef object get(self, const char* text, Py_ssize_t size)


cdef class Floats:
    """One float object for equal numbers."""

    cdef FloatSlot slots[FLOAT_SLOTS]
    cdef unsigned int looked_up
    cdef unsigned int found
    cdef unsigned int resting

    cdef object get(self, uint64_t bits)


cdef object make_text(const char* text, Py_ssize_t size)
