# cython: language_level=3
"""Objects that are shared because the data repeats: field names, and columns of few distinct values.

Each cache is a small direct-mapped table that owns a reference to every object in it: an entry lives until
another takes its slot. A cache that rarely hits rests for a while and costs a counter's decrement.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.utf8 cimport (
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    is_ascii,
    same_bytes,
)

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)

cdef enum:
    LONGEST_KEY = 64
    PERIOD = 2048       # look-ups after which a cache is judged
    REST = 16 * PERIOD  # look-ups it then sits out when fewer than a quarter hit

cdef uint64_t MIX = <uint64_t>0x9E3779B97F4A7C15


cdef object make_text(const char* text, Py_ssize_t size):
    """A new str of UTF-8 bytes; UnicodeDecodeError when they are not."""
    cdef object made
    if not is_ascii(text, size):
        return PyUnicode_DecodeUTF8(<char*>text, size, "strict")
    if size == 0:
        return ""
    made = PyUnicode_New(size, 127)
    memcpy(PyUnicode_DATA(made), text, size)
    return made


cdef inline uint64_t load(const char* text, Py_ssize_t size) noexcept:
    """Up to 8 bytes as one number."""
    cdef uint64_t word = 0
    cdef unsigned int half, other
    if size >= 8:
        memcpy(&word, text, 8)
    elif size >= 4:
        memcpy(&half, text, 4)
        memcpy(&other, text + size - 4, 4)
        word = half | (<uint64_t>other << 32)
    elif size:
        word = (
            <unsigned char>text[0]
            | (<uint64_t><unsigned char>text[size >> 1] << 8)
            | (<uint64_t><unsigned char>text[size - 1] << 16)
        )
    return word


cdef class ShortTexts:
    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(TEXT_SLOTS):
            Py_XDECREF(self.slots[i].text)

    cdef object get(self, const char* text, Py_ssize_t size):
        """The str of at most 16 bytes of UTF-8."""
        cdef uint64_t head, tail
        cdef TextSlot* slot
        cdef PyObject* old
        cdef object made
        if self.resting:
            self.resting -= 1
            return make_text(text, size)
        head = load(text, size)
        tail = load(text + size - 8, 8) if size > 8 else 0
        slot = &self.slots[((head ^ (tail * 31) ^ <uint64_t>size) * MIX) >> 55]
        self.looked_up += 1
        if slot.text != NULL and slot.head == head and slot.tail == tail and slot.size == size:
            self.found += 1
            return <object>slot.text
        if self.looked_up >= PERIOD:
            if self.found * 4 < self.looked_up:
                self.resting = REST
            self.looked_up = 0
            self.found = 0
        made = make_text(text, size)
        old = slot.text
        Py_INCREF(made)
        slot.head = head
        slot.tail = tail
        slot.size = size
        slot.text = <PyObject*>made
        Py_XDECREF(old)
        return made


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
        cdef double value
        cdef FloatSlot* slot
        cdef PyObject* old
        cdef object made
        memcpy(&value, &bits, 8)
        if self.resting:
            self.resting -= 1
            return value
        slot = &self.slots[(bits * MIX) >> 55]
        self.looked_up += 1
        if slot.number != NULL and slot.bits == bits:
            self.found += 1
            return <object>slot.number
        if self.looked_up >= PERIOD:
            if self.found * 4 < self.looked_up:
                self.resting = REST
            self.looked_up = 0
            self.found = 0
        made = value
        # One NaN object for all would make [nan] == [nan] true, by identity.
        if value == value:
            old = slot.number
            Py_INCREF(made)
            slot.bits = bits
            slot.number = <PyObject*>made
            Py_XDECREF(old)
        return made
