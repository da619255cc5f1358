# cython: language_level=3
"""Writes JSON in the spelling of json.dumps(), directly into the output buffer.

A value of a type that JSON lacks goes to write_unknown(). That can run any code, and meanwhile another thread can
run too. Therefore the writer holds a reference to each container, and checks its size after every item.
"""

cimport cython
from cpython.dict cimport PyDict_Check, PyDict_CheckExact, PyDict_Next, PyDict_Size
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check, PyFloat_CheckExact
from cpython.list cimport PyList_Check, PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_Check, PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact
from libc.math cimport isfinite
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.json.floats cimport LONGEST_FLOAT, prepare_floats, put_float
from redis_fastbatch._core.json.text cimport (
    copy_plain,
    decimal_width,
    is_plain_ascii,
    is_special,
    load8,
    put_digits,
)
from redis_fastbatch._core.runtime.utf8 cimport (
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    PyUnicode_KIND,
    PyUnicode_READ,
    put_code_point,
)

from redis_fastbatch._core.json.unusual import Unusual
from redis_fastbatch._core.runtime.place import misfit
from redis_fastbatch.errors import EncodeError

cdef extern from "Python.h":
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef enum:
    MAX_DEPTH = 200      # json.dumps handles deeper values and containers that contain themselves
    ESCAPED = 6          # longest form of one character, such as \u001f
    TEXT_BLOCK = 1024

cdef const char* HEX = "0123456789abcdef"


cdef inline int put_word(OutputBuffer out, const char* text, Py_ssize_t size) except -1:
    """Append a text of constant size, so that the compiler needs no call to copy it."""
    reserve(out, size)
    memcpy(out.data + out.end, text, size)
    out.end += size
    return 0


cdef inline int put_str(object text, OutputBuffer out) except -1:
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef Py_ssize_t done = 0
    cdef char* p
    reserve(out, length + 2)
    p = out.data + out.end
    p[0] = c'"'
    if PyUnicode_IS_COMPACT_ASCII(text):
        done = copy_plain(p + 1, <const char*>PyUnicode_DATA(text), length)
        if done == length:
            p[length + 1] = c'"'
            out.end += length + 2
            return 0
    out.end += 1 + done
    put_characters(text, done, out)
    return put_word(out, '"', 1)


cdef int put_characters(object text, Py_ssize_t i, OutputBuffer out) except -1:
    """Append the text from character `i` on, escaped where needed."""
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef int kind = PyUnicode_KIND(text)
    cdef void* data = PyUnicode_DATA(text)
    cdef Py_ssize_t stop
    cdef uint32_t c
    cdef char* p
    while i < length:
        stop = min(i + TEXT_BLOCK, length)
        reserve(out, (stop - i) * ESCAPED)
        p = out.data + out.end
        while i < stop:
            if kind == 1:
                # Most of a text in a Latin alphabet is ASCII.
                while stop - i >= 8 and is_plain_ascii(load8(<const char*>data + i)):
                    memcpy(p, <const char*>data + i, 8)
                    p += 8
                    i += 8
                if i == stop:
                    break
            c = PyUnicode_READ(kind, data, i)
            if c < 0x80:
                if is_special(c):
                    p = put_escape(p, c)
                else:
                    p[0] = <char>c
                    p += 1
            elif 0xD800 <= c <= 0xDFFF:
                refuse_surrogate(text, i)
            else:
                p = put_code_point(p, c)
            i += 1
        out.end = p - out.data
    return 0


cdef char* put_escape(char* p, uint32_t c) noexcept:
    p[0] = c'\\'
    if c == c'"' or c == c'\\':
        p[1] = <char>c
    elif c == 0x0A:
        p[1] = c'n'
    elif c == 0x0D:
        p[1] = c'r'
    elif c == 0x09:
        p[1] = c't'
    elif c == 0x0C:
        p[1] = c'f'
    elif c == 0x08:
        p[1] = c'b'
    else:
        p[1] = c'u'
        p[2] = c'0'
        p[3] = c'0'
        p[4] = HEX[c >> 4]
        p[5] = HEX[c & 15]
        return p + 6
    return p + 2


cdef inline int put_int(object number, OutputBuffer out) except -1:
    cdef int overflow
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    cdef uint64_t size
    cdef Py_ssize_t width
    if overflow:
        return put_large(number, out)
    reserve(out, 24)
    size = <uint64_t>value
    if value < 0:
        size = 0 - size
        out.data[out.end] = c'-'
        out.end += 1
    width = decimal_width(size)
    put_digits(out.data + out.end, size, width)
    out.end += width
    return 0


cdef int put_large(object number, OutputBuffer out) except -1:
    try:
        text = int.__repr__(number).encode()
    except ValueError as error:
        # Python limits the digits that it writes: see sys.set_int_max_str_digits().
        raise EncodeError(f"an int of {number.bit_length()} bits: {error}") from error
    return put(out, text)


cdef int refuse_surrogate(object text, Py_ssize_t place) except -1:
    """Refuse a text with the error that str.encode() raises as the cause."""
    cdef object held = text
    raise misfit(
        held, f"a str holds the surrogate {held[place]!r} at index {place}, not UTF-8"
    ) from UnicodeEncodeError("utf-8", held, place, place + 1, "surrogates not allowed")


cdef int changed_size(str what) except -1:
    raise EncodeError(f"{what} changed size while it was encoded")


cdef inline int put_double(JsonWriter writer, object number, OutputBuffer out) except -1:
    cdef double value = PyFloat_AS_DOUBLE(number)
    if not writer.allow_nan and not isfinite(value):
        writer.refuse_float(number)
    reserve(out, LONGEST_FLOAT)
    out.end = put_float(out.data + out.end, value) - out.data
    return 0


cdef inline int put_colon(JsonWriter writer, OutputBuffer out) except -1:
    reserve(out, 2)
    out.data[out.end] = c':'
    out.data[out.end + 1] = c' '
    out.end += 1 + writer.spaced
    return 0


cdef inline int put_opening(JsonWriter writer, OutputBuffer out, char opening, bint first) except -1:
    """Write the opening bracket before the first item, a comma before any other."""
    reserve(out, 2)
    if first:
        out.data[out.end] = opening
        out.end += 1
    else:
        out.data[out.end] = c','
        out.data[out.end + 1] = c' '
        out.end += 1 + writer.spaced
    return 0


cdef inline bint put_scalar(JsonWriter writer, PyObject* value, OutputBuffer out) except -1:
    """Write a str, int, float, None or bool; return False for another type.

    No Python code runs here, so the caller may pass a borrowed reference.
    """
    if PyUnicode_CheckExact(<object>value):
        put_str(<object>value, out)
    elif PyLong_CheckExact(<object>value):
        put_int(<object>value, out)
    elif PyFloat_CheckExact(<object>value):
        put_double(writer, <object>value, out)
    elif value == Py_None:
        put_word(out, "null", 4)
    elif value == Py_True:
        put_word(out, "true", 4)
    elif value == Py_False:
        put_word(out, "false", 5)
    else:
        return False
    return True


cdef class JsonWriter:
    def __cinit__(self):
        prepare_floats()

    cdef int write(self, object value, OutputBuffer out, int depth) except -1:
        """Write a value.

        Raises:
            EncodeError: the value cannot be written.
            Unusual: the standard library has to decide.
        """
        if put_scalar(self, <PyObject*>value, out):
            return 0
        if depth >= MAX_DEPTH:
            raise Unusual
        if FREE_THREADED and (PyDict_CheckExact(value) or PyList_CheckExact(value)):
            return self.put_locked(value, out, depth + 1)
        if PyDict_CheckExact(value):
            return self.put_dict(<dict>value, out, depth + 1)
        if PyList_CheckExact(value):
            return self.put_list(<list>value, out, depth + 1)
        if PyTuple_CheckExact(value):
            return self.put_tuple(<tuple>value, out, depth + 1)
        if PyUnicode_Check(value):
            return put_str(value, out)
        if PyLong_Check(value):
            return put_int(value, out)
        if PyFloat_Check(value):
            return put_double(self, value, out)
        if PyList_Check(value) or PyTuple_Check(value):
            return self.put_tuple(tuple(value), out, depth + 1)
        if PyDict_Check(value):
            return self.put_pairs(value, out, depth + 1)
        return self.write_unknown(value, out, depth)

    cdef int put_locked(self, object value, OutputBuffer out, int depth) except -1:
        """Write a dict or a list while no other thread changes it."""
        with cython.critical_section(value):
            if PyDict_CheckExact(value):
                return self.put_dict(<dict>value, out, depth)
            return self.put_list(<list>value, out, depth)

    cdef int write_unknown(self, object value, OutputBuffer out, int depth) except -1:
        """Write a value of a type that JSON does not have."""
        raise NotImplementedError(f"{type(self).__name__} has no write_unknown")

    cdef int refuse(self, object value, str reason) except -1:
        """Refuse a value as json.dumps() does, with a TypeError as the cause."""
        raise misfit(value, reason) from TypeError(reason)

    cdef int refuse_float(self, object number) except -1:
        reason = f"JSON has no {float.__repr__(number)}; use None, or JsonCodec(allow_nan=True)"
        raise misfit(number, reason) from ValueError("Out of range float values are not JSON compliant")

    cdef int put_other_key(self, object key, OutputBuffer out) except -1:
        """Write a dict's key of any type. It is always a string in JSON."""
        if PyUnicode_Check(key):
            return put_str(key, out)
        put_word(out, '"', 1)
        if PyFloat_Check(key):
            put_double(self, key, out)
        elif key is True:
            put_word(out, "true", 4)
        elif key is False:
            put_word(out, "false", 5)
        elif key is None:
            put_word(out, "null", 4)
        elif PyLong_Check(key):
            put_int(key, out)
        else:
            self.refuse(key, f"a key of a dict must be str, int, float, bool or None for JSON, got {type(key).__name__}")
        return put_word(out, '"', 1)

    cdef int put_dict(self, dict mapping, OutputBuffer out, int depth) except -1:
        cdef Py_ssize_t count = PyDict_Size(mapping)
        cdef Py_ssize_t written = 0
        cdef Py_ssize_t position = 0
        cdef PyObject* next_key
        cdef PyObject* next_value
        cdef object key, value
        if count == 0:
            return put_word(out, "{}", 2)
        while PyDict_Next(mapping, &position, &next_key, &next_value):
            put_opening(self, out, c'{', written == 0)
            written += 1
            if PyUnicode_CheckExact(<object>next_key):
                put_str(<object>next_key, out)
                put_colon(self, out)
                if put_scalar(self, next_value, out):
                    continue
                value = <object>next_value
            else:
                key = <object>next_key
                value = <object>next_value
                self.put_other_key(key, out)
                put_colon(self, out)
            self.write(value, out, depth)
            if PyDict_Size(mapping) != count:
                break
        if written != count or PyDict_Size(mapping) != count:
            changed_size("a dict")
        return put_word(out, "}", 1)

    cdef int put_pairs(self, object mapping, OutputBuffer out, int depth) except -1:
        """Write a dict of a subclass from its items(). It is empty if dict says so: json checks that first."""
        cdef Py_ssize_t written = 0
        if PyDict_Size(mapping) == 0:
            return put_word(out, "{}", 2)
        for item in list(mapping.items()):
            if not PyTuple_Check(item) or PyTuple_GET_SIZE(item) != 2:
                raise EncodeError(f"items() of {type(mapping).__name__} must return pairs")
            put_opening(self, out, c'{', written == 0)
            self.put_other_key(<object>PyTuple_GET_ITEM(item, 0), out)
            put_colon(self, out)
            self.write(<object>PyTuple_GET_ITEM(item, 1), out, depth)
            written += 1
        return put_word(out, "}", 1) if written else put_word(out, "{}", 2)

    cdef int put_list(self, list items, OutputBuffer out, int depth) except -1:
        cdef Py_ssize_t count = PyList_GET_SIZE(items)
        cdef Py_ssize_t i
        cdef object item
        if count == 0:
            return put_word(out, "[]", 2)
        for i in range(count):
            if PyList_GET_SIZE(items) != count:
                changed_size("a list")
            put_opening(self, out, c'[', i == 0)
            if not put_scalar(self, PyList_GET_ITEM(items, i), out):
                item = <object>PyList_GET_ITEM(items, i)
                self.write(item, out, depth)
        if PyList_GET_SIZE(items) != count:
            changed_size("a list")
        return put_word(out, "]", 1)

    cdef int put_tuple(self, tuple items, OutputBuffer out, int depth) except -1:
        cdef Py_ssize_t count = PyTuple_GET_SIZE(items)
        cdef Py_ssize_t i
        if count == 0:
            return put_word(out, "[]", 2)
        for i in range(count):
            put_opening(self, out, c'[', i == 0)
            self.write(<object>PyTuple_GET_ITEM(items, i), out, depth)
        return put_word(out, "]", 1)
