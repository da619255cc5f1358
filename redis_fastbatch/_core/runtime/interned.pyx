# cython: language_level=3
"""Shares objects where the data repeats: field names, and columns with few distinct values.

Each cache is a small direct-mapped table that owns a reference to every object in it. An entry lives until another
one takes its slot. A cache that rarely hits is not used for a while, and then costs the decrement of a counter.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport uint64_t

from redis_fastbatch._core.runtime.utf8 cimport (
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    same_bytes,
)

cdef enum:
    LONGEST_KEY = 64


cdef inline object owned(PyObject* new_reference):
    """Return an object, and take over the reference."""
    cdef object held = <object>new_reference
    Py_DECREF(held)
    return held


cdef object make_text(const char* text, Py_ssize_t size):
    """Return a new str of UTF-8 bytes; raise UnicodeDecodeError if they are not UTF-8."""
    return owned(new_str(text, size))


cdef class ShortTexts:
    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(TEXT_SLOTS):
            Py_XDECREF(self.slots[i].text)

    cdef object get(self, const char* text, Py_ssize_t size):
        """Return the str of at most 16 bytes of UTF-8."""
        return owned(short_str(self, text, size))


cdef class Keys:
    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(KEY_SLOTS):
            Py_XDECREF(self.slots[i])

    cdef object get(self, const char* text, Py_ssize_t size):
        cdef uint64_t mixed
        cdef PyObject** slot
        cdef PyObject* known
        cdef object made
        if size > LONGEST_KEY:
            return make_text(text, size)
        mixed = load(text, size) ^ <uint64_t>size
        if size > 8:
            mixed ^= load(text + size - 8, 8) * 31
        slot = &self.slots[(mixed * MIX) >> 55]
        known = slot[0]
        if (
            known != NULL
            and PyUnicode_GET_LENGTH(<object>known) == size
            and same_bytes(<const char*>PyUnicode_DATA(<object>known), text, size)
        ):
            return <object>known
        made = make_text(text, size)
        hash(made)
        if PyUnicode_IS_COMPACT_ASCII(made):
            Py_INCREF(made)
            slot[0] = <PyObject*>made
            Py_XDECREF(known)
        return made


cdef class Floats:
    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(FLOAT_SLOTS):
            Py_XDECREF(self.slots[i].number)

    cdef object get(self, uint64_t bits):
        """Return the float of these bits."""
        return owned(shared_float(self, bits))
