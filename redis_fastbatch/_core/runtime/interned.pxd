# cython: language_level=3
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.runtime.utf8 cimport NOT_ASCII, copy_blocks, copy_short, is_ascii

cdef extern from "Python.h":
    PyObject* new_text "PyUnicode_New"(Py_ssize_t size, uint32_t maxchar) except NULL
    PyObject* decode_text "PyUnicode_DecodeUTF8"(const char* text, Py_ssize_t size, const char* errors) except NULL
    PyObject* new_float "PyFloat_FromDouble"(double value) except NULL
    void* text_data "PyUnicode_DATA"(PyObject* text)

cdef enum:
    TEXT_SLOTS = 512
    KEY_SLOTS = 512
    FLOAT_SLOTS = 512
    PERIOD = 2048       # look-ups after which a cache is judged
    REST = 16 * PERIOD  # look-ups for which it is not used if fewer than a quarter hit

cdef extern from *:
    """
    #define FASTBATCH_MIX 0x9E3779B97F4A7C15ULL
    """
    uint64_t MIX "FASTBATCH_MIX"

cdef struct TextSlot:
    uint64_t head
    uint64_t tail
    Py_ssize_t size
    PyObject* text

cdef struct FloatSlot:
    uint64_t bits
    PyObject* number

cdef struct Usefulness:
    unsigned int looked_up
    unsigned int found
    unsigned int resting


cdef class ShortTexts:
    """One str object for equal short texts."""

    cdef TextSlot slots[TEXT_SLOTS]
    cdef Usefulness use

    cdef object get(self, const char* text, Py_ssize_t size)


cdef class Keys:
    """One str object, its hash computed, for equal map keys."""

    cdef PyObject* slots[KEY_SLOTS]

    cdef object get(self, const char* text, Py_ssize_t size)


cdef class Floats:
    """One float object for equal numbers."""

    cdef FloatSlot slots[FLOAT_SLOTS]
    cdef Usefulness use

    cdef object get(self, uint64_t bits)


cdef object make_text(const char* text, Py_ssize_t size)


cdef inline void judge(Usefulness* use) noexcept:
    if use.looked_up >= PERIOD:
        if use.found * 4 < use.looked_up:
            use.resting = REST
        use.looked_up = 0
        use.found = 0


cdef inline uint64_t load(const char* text, Py_ssize_t size) noexcept:
    """Return up to 8 bytes as one number. Different texts of the same size give different numbers."""
    cdef uint64_t word = 0
    cdef uint32_t half, other
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


cdef inline PyObject* new_ascii(const char* text, Py_ssize_t size) except NULL:
    """Return a new reference to a str of bytes that are known to be ASCII."""
    cdef PyObject* made = new_text(size, 127)
    if size > 16:
        copy_blocks(<char*>text_data(made), text, size)
    else:
        copy_short(<char*>text_data(made), text, size)
    return made


cdef inline PyObject* new_str(const char* text, Py_ssize_t size) except NULL:
    """Return a new reference to a str of UTF-8 bytes, or raise UnicodeDecodeError."""
    return new_ascii(text, size) if is_ascii(text, size) else decode_text(text, size, "strict")


cdef inline PyObject* short_str(ShortTexts cache, const char* text, Py_ssize_t size, bint plain=False) except? NULL:
    """Return a new reference to the str of at most 16 bytes of UTF-8.

    With `plain` return NULL, without an exception, if the bytes are not ASCII and not in the cache.
    """
    cdef uint64_t head = load(text, size)
    cdef uint64_t tail = load(text + size - 8, 8) if size > 8 else 0
    cdef TextSlot* slot = NULL
    cdef PyObject* made
    if cache.use.resting:
        cache.use.resting -= 1
    else:
        slot = &cache.slots[((head ^ (tail * 31) ^ <uint64_t>size) * MIX) >> 55]
        cache.use.looked_up += 1
        if slot.text != NULL and slot.head == head and slot.tail == tail and slot.size == size:
            cache.use.found += 1
            Py_INCREF(<object>slot.text)
            return slot.text
        judge(&cache.use)
    # head and tail contain every one of at most 16 bytes.
    if not (head | tail) & NOT_ASCII:
        made = new_ascii(text, size)
    elif plain:
        return NULL
    else:
        made = decode_text(text, size, "strict")
    if slot != NULL:
        keep_text(slot, head, tail, size, made)
    return made


cdef inline void keep_text(TextSlot* slot, uint64_t head, uint64_t tail, Py_ssize_t size, PyObject* text) noexcept:
    cdef PyObject* old = slot.text
    Py_INCREF(<object>text)
    slot.head = head
    slot.tail = tail
    slot.size = size
    slot.text = text
    Py_XDECREF(old)


cdef inline PyObject* shared_float(Floats cache, uint64_t bits) except NULL:
    """Return a new reference to the float of these bits."""
    cdef double value
    cdef FloatSlot* slot
    cdef PyObject* old
    cdef PyObject* made
    memcpy(&value, &bits, 8)
    if cache.use.resting:
        cache.use.resting -= 1
        return new_float(value)
    slot = &cache.slots[(bits * MIX) >> 55]
    cache.use.looked_up += 1
    if slot.number != NULL and slot.bits == bits:
        cache.use.found += 1
        Py_INCREF(<object>slot.number)
        return slot.number
    judge(&cache.use)
    made = new_float(value)
    # A shared NaN would make [nan] == [nan] true, because it would be the same object.
    if value == value:
        old = slot.number
        Py_INCREF(<object>made)
        slot.bits = bits
        slot.number = made
        Py_XDECREF(old)
    return made
