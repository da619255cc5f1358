# cython: language_level=3
"""Reads JSON of any spelling, as json.loads() does.

Malformed or deeply nested JSON, rare numbers, lone surrogates and values that may have a special meaning raise
Unusual. Then the standard library reads the whole value and decides. Between taking a pointer and using it, only
allocation happens: no Python code runs here.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.runtime.interned cimport Floats, Keys, ShortTexts, make_text
from redis_fastbatch._core.runtime.rows cimport (
    WIDEST_ROW,
    RowShape,
    Shapes,
    finish_row,
    is_worth_learning,
    put_value,
    slot_of,
)
from redis_fastbatch._core.json.text cimport plain_end
from redis_fastbatch._core.json.unescape cimport unescaped
from redis_fastbatch._core.runtime.utf8 cimport same_bytes

import json.decoder

from redis_fastbatch._core.json.unusual import Unusual

cdef extern from "Python.h":
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0

cdef enum:
    MAX_DEPTH = 200
    SAFE_DIGITS = 18      # decimal digits that fit into 64 bits
    EXACT_DIGITS = 15     # decimal digits that fit into the 53 bits of a double
    LONGEST_NUMBER = 64

# The object that json returns: in a list, NaN equals itself only by identity.
cdef object NAN = json.decoder.NaN
cdef double* POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15
]


cdef bint starts(Place* at, const char* text, Py_ssize_t size) noexcept:
    """Skip `text` if it comes next; return whether it did."""
    if at.end - at.p < size or memcmp(at.p, text, size) != 0:
        return False
    at.p += size
    return True


cdef inline bint take(Place* at, char c) noexcept:
    """Skip white space, and `c` if it comes next; return whether it did."""
    skip_space(at)
    if at.p < at.end and at.p[0] == c:
        at.p += 1
        return True
    return False


cdef inline void skip_space(Place* at) noexcept:
    cdef char c
    while at.p < at.end:
        c = at.p[0]
        if c != c' ' and c != c'\n' and c != c'\r' and c != c'\t':
            return
        at.p += 1


cdef inline bint is_digit(const char* p, const char* end) noexcept:
    return p < end and c'0' <= p[0] <= c'9'


cdef inline bint is_marker(const char* key, Py_ssize_t size) noexcept:
    return size == 8 and memcmp(key, b"__type__", 8) == 0


cdef inline Py_ssize_t shape_slot(const char* key, Py_ssize_t size) noexcept:
    """Return the slot for the shape of an object that begins with this key."""
    cdef uint32_t head = 0
    if size >= 4:
        memcpy(&head, key, 4)
    elif size:
        head = <unsigned char>key[0] | (<uint32_t><unsigned char>key[size - 1] << 8)
    return slot_of(head, size)


cdef class JsonReader:
    """Reads JSON. Raises Unusual for what it leaves to the standard library."""

    def __cinit__(self):
        self.keys = Keys()
        self.texts = ShortTexts()
        self.floats = Floats()
        self.shapes = Shapes()

    cdef object read_all(self, const char* data, Py_ssize_t size):
        """Return the value that the bytes hold."""
        cdef Place at
        at.p = data
        at.end = data + size
        at.depth = 0
        value = self.read_locked(&at) if FREE_THREADED else self.read(&at)
        skip_space(&at)
        if at.p != at.end:
            raise Unusual
        return value

    cdef object read_locked(self, Place* at):
        """Read while no other thread uses the caches."""
        with cython.critical_section(self):
            return self.read(at)

    cdef object read(self, Place* at):
        """Return the next value."""
        cdef char c
        skip_space(at)
        if at.p >= at.end:
            raise Unusual
        c = at.p[0]
        if c == c'"':
            at.p += 1
            return self.read_text(at)
        if c'0' <= c <= c'9':
            return self.read_number(at)
        if c == c'{':
            at.p += 1
            return self.read_object(at)
        if c == c'[':
            at.p += 1
            return self.read_list(at)
        return self.read_word(at)

    cdef object read_word(self, Place* at):
        """Read a word or a negative number."""
        if starts(at, b"true", 4):
            return True
        if starts(at, b"false", 5):
            return False
        if starts(at, b"null", 4):
            return None
        if self.allow_nan:
            if starts(at, b"NaN", 3):
                return NAN
            if starts(at, b"Infinity", 8):
                return INFINITY
            if starts(at, b"-Infinity", 9):
                return -INFINITY
        if at.p[0] == c'-':
            return self.read_number(at)
        raise Unusual

    cdef object read_number(self, Place* at):
        cdef const char* start = at.p
        cdef const char* p = at.p
        cdef const char* first
        cdef bint negative = p[0] == c'-'
        cdef bint exponent = False
        cdef uint64_t digits = 0
        cdef Py_ssize_t whole
        cdef Py_ssize_t decimals = 0
        cdef double number
        cdef uint64_t bits
        p += negative
        first = p
        while is_digit(p, at.end):
            digits = digits * 10 + <uint64_t>(p[0] - c'0')
            p += 1
        whole = p - first
        if whole == 0 or (first[0] == c'0' and whole > 1):
            raise Unusual
        if p < at.end and p[0] == c'.':
            p += 1
            first = p
            while is_digit(p, at.end):
                digits = digits * 10 + <uint64_t>(p[0] - c'0')
                p += 1
            decimals = p - first
            if decimals == 0:
                raise Unusual
        if p < at.end and (p[0] == c'e' or p[0] == c'E'):
            exponent = True
            p += 1
            if p < at.end and (p[0] == c'+' or p[0] == c'-'):
                p += 1
            first = p
            while is_digit(p, at.end):
                p += 1
            if p == first:
                raise Unusual
        at.p = p
        if decimals == 0 and not exponent:
            if whole > SAFE_DIGITS:
                return large_int(start, p)
            return -<long long>digits if negative else <long long>digits
        if exponent or whole + decimals > EXACT_DIGITS:
            number = any_float(start, p)
        else:
            # Both operands are exact, so the division rounds correctly.
            number = <double>digits / POWERS[decimals]
            if negative:
                number = -number
        memcpy(&bits, &number, 8)
        return self.floats.get(bits)

    cdef object read_text(self, Place* at):
        """Read a str after its opening quote."""
        cdef const char* text = at.p
        cdef const char* stop = plain_end(text, at.end)
        if stop >= at.end:
            raise Unusual
        if stop[0] != c'"':
            if stop[0] == c'\\':
                return unescaped(&at.p, at.end)
            raise Unusual
        at.p = stop + 1
        if stop - text <= 16:
            return self.texts.get(text, stop - text)
        return make_text(text, stop - text)

    cdef object read_key(self, Place* at):
        """Read an object's key with its quotes and colon."""
        cdef const char* text
        cdef const char* stop
        if not take(at, c'"'):
            raise Unusual
        text = at.p
        stop = plain_end(text, at.end)
        if at.end - stop >= 3 and stop[0] == c'"':
            if self.has_wrappers and is_marker(text, stop - text):
                raise Unusual
            key = self.keys.get(text, stop - text)
            at.p = stop + 1
        else:
            key = self.read_text(at)
            if self.has_wrappers and key == "__type__":
                raise Unusual
        if not take(at, c':'):
            raise Unusual
        skip_space(at)
        return key

    cdef list read_list(self, Place* at):
        """Read a list after its opening bracket."""
        cdef list items = []
        if take(at, c']'):
            return items
        if at.depth >= MAX_DEPTH:
            raise Unusual
        at.depth += 1
        while True:
            items.append(self.read(at))
            if take(at, c','):
                continue
            if take(at, c']'):
                break
            raise Unusual
        at.depth -= 1
        return items

    cdef object read_object(self, Place* at):
        """Read a dict after the opening brace."""
        cdef const char* key
        cdef const char* stop
        cdef Py_ssize_t slot
        if at.depth >= MAX_DEPTH:
            raise Unusual
        if take(at, c'}'):
            return {}
        if at.end - at.p < 2:
            raise Unusual
        key = at.p + 1
        stop = plain_end(key, at.end)
        if self.has_wrappers and is_marker(key, stop - key):
            return self.read_wrapped(at)
        at.depth += 1
        slot = shape_slot(key, stop - key)
        shape = self.shapes.slots[slot]
        if shape is not None:
            row = self.read_row(at, <RowShape>shape)
        elif is_worth_learning(self.shapes, slot):
            row = self.read_learning(at, slot)
        else:
            row = self.read_pairs(at, {})
        at.depth -= 1
        return row

    cdef object read_wrapped(self, Place* at):
        """Read an object whose first key is "__type__"."""
        raise Unusual

    cdef dict read_row(self, Place* at, RowShape shape):
        """Read an object that probably has the keys of `shape`."""
        cdef dict row = shape.blank()
        cdef PyObject** slots = shape.slots(row)
        cdef bint holds_containers = False
        cdef Py_ssize_t i, size
        for i in range(shape.count):
            size = shape.sizes[i]
            if at.end - at.p <= size or not same_bytes(at.p, shape.keys[i], size):
                return self.read_other_row(at, shape, row, i)
            at.p += size
            # White space may hide a container.
            holds_containers |= at.p[0] == c'{' or at.p[0] == c'[' or at.p[0] <= c' '
            put_value(shape, row, slots, i, self.read(at))
        if not take(at, c'}'):
            return self.read_other_row(at, shape, row, shape.count)
        finish_row(shape, row, slots, holds_containers)
        return row

    cdef dict read_other_row(self, Place* at, RowShape shape, dict started, Py_ssize_t done):
        """Read the rest of an object whose first `done` keys are those of `shape`, and whose next key differs."""
        cdef dict row = self.shapes.missed(shape, started, done)
        if done and take(at, c'}'):
            return row
        if done and not take(at, c','):
            raise Unusual
        return self.read_pairs(at, row)

    cdef dict read_pairs(self, Place* at, dict row):
        """Read at least one pair, up to the closing brace."""
        while True:
            key = self.read_key(at)
            PyDict_SetItem(row, key, self.read(at))
            if take(at, c','):
                continue
            if take(at, c'}'):
                return row
            raise Unusual

    cdef dict read_learning(self, Place* at, Py_ssize_t slot):
        """Read an object pair by pair, and make a shape of its keys, each with all bytes around it."""
        cdef dict row = {}
        cdef list encoded = []
        cdef const char* place
        while True:
            place = at.p
            if encoded and not take(at, c','):
                break
            key = self.read_key(at)
            encoded.append(PyBytes_FromStringAndSize(place, at.p - place))
            PyDict_SetItem(row, key, self.read(at))
        if not take(at, c'}'):
            raise Unusual
        if len(row) == len(encoded) <= WIDEST_ROW:
            self.shapes.learn(slot, row, encoded)
        return row


cdef object large_int(const char* start, const char* stop):
    try:
        return int(PyBytes_FromStringAndSize(start, stop - start))
    except ValueError:
        # Python limits the digits that it reads: see sys.set_int_max_str_digits().
        raise Unusual from None


cdef double any_float(const char* start, const char* stop) except? -1.0:
    cdef char[LONGEST_NUMBER] text
    cdef Py_ssize_t size = stop - start
    if size >= LONGEST_NUMBER:
        return float(PyBytes_FromStringAndSize(start, size))
    memcpy(text, start, size)
    text[size] = 0
    return PyOS_string_to_double(text, NULL, NULL)
