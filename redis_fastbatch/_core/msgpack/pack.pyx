# cython: language_level=3
"""Packs Python values as MessagePack.

The bytes are those of `msgpack.packb(value, use_bin_type=True, datetime=True)`.

`default` and the methods of subclasses can run any code, and meanwhile another thread can run too. Therefore the
packer holds a reference to each value that it packs, and checks the size of a container after every item.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_Check
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_Check,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.datetime cimport PyDateTime_CheckExact, import_datetime
from cpython.dict cimport PyDict_Check, PyDict_CheckExact, PyDict_Next
from cpython.float cimport PyFloat_Check
from cpython.list cimport PyList_Check, PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_Check
from cpython.memoryview cimport PyMemoryView_Check
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport int64_t, uint32_t, uint64_t

from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.msgpack.format cimport (
    put_array_header,
    put_bin_header,
    put_bool,
    put_double,
    put_ext_header,
    put_int,
    put_map_header,
    put_nil,
    put_str_header,
    put_timestamp,
    put_uint,
)
from redis_fastbatch._core.runtime.nesting cimport outer_depth
from redis_fastbatch._core.runtime.utf8 cimport copy_short, put_utf8, utf8_size

import datetime

import msgpack
from msgpack import ExtType, Timestamp

from redis_fastbatch._core.runtime.place import default_advice, misfit, placed, type_name
from redis_fastbatch._messages import format_error, format_key
from redis_fastbatch.errors import EncodeError

cdef extern from "Python.h":
    Py_ssize_t PyDict_GET_SIZE(dict mapping)
    long long PyLong_AsLongLongAndOverflow(PyObject* number, int* overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(PyObject* number) except? 0xFFFFFFFFFFFFFFFF
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False
    double PyFloat_AS_DOUBLE(PyObject* number)
    bint PyUnicode_CheckExact(PyObject* value)
    bint PyLong_CheckExact(PyObject* value)
    bint PyFloat_CheckExact(PyObject* value)
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text)
    int PyUnicode_KIND(PyObject* text)
    void* PyUnicode_DATA(PyObject* text)

import_datetime()

# The limit of our reader and of msgpack-python. Deeper values could overflow the stack of a small thread.
cdef int MAX_DEPTH = 1024
cdef object UINT64_MAX = 2**64 - 1
cdef frozenset PLAIN_TYPES = frozenset([str, bytes, int, float, bool, type(None)])
# The years 1 to 9999. The reader makes a datetime, which holds no others.
cdef int64_t FIRST_SECOND = -62135596800
cdef int64_t LAST_SECOND = 253402300799
cdef object EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


cdef inline uint32_t length32(Py_ssize_t size, str kind) except? 0xFFFFFFFF:
    if size > <Py_ssize_t>0xFFFFFFFE:
        raise EncodeError(f"the length of {kind} must fit into 32 bits for MessagePack, found {size}")
    return <uint32_t>size


cdef int raise_size_changed(str kind) except -1:
    raise EncodeError(f"{kind} changed size while it was encoded")


cdef str unsupported_reason(object value):
    """Return why MessagePack cannot hold `value`, and what to do."""
    if PyLong_Check(value):
        found = int.__repr__(value) if value.bit_length() <= 128 else f"one of {value.bit_length()} bits"
        return f"an int must be from -2**63 to 2**64 - 1 for MessagePack, found {found}"
    if PyDateTime_CheckExact(value):
        return (
            "a datetime must have a time zone, because MessagePack's timestamp is a point in time, "
            f"found {value}; add tzinfo=, or use codecs.common_types"
        )
    return f"MessagePack has no type for {type_name(value)}; {default_advice(value, 'MsgpackCodec')}"


cdef bint reads_back_equal(object key):
    """Return whether a reader certainly gets an equal key. The key has a type that put_scalar() does not write."""
    if PyTuple_CheckExact(key):
        for item in key:
            if type(item) not in PLAIN_TYPES and not reads_back_equal(item):
                return False
        return True
    return PyBytes_CheckExact(key)


cdef object decoded_key(object key, OutputBuffer out, Py_ssize_t begin):
    """Return the key that a reader gets for the key that was packed at `begin`."""
    if PyUnicode_Check(key):
        return str.__str__(key)
    encoded = PyBytes_FromStringAndSize(out.data + begin, out.end - begin)
    try:
        found = msgpack.unpackb(encoded, strict_map_key=False, use_list=False, timestamp=3)
        hash(found)
    except (TypeError, ValueError) as error:
        reason = f"a map's key must be hashable when it is read, found {type_name(key)}: {error}"
        raise misfit(key, reason) from None
    return found


cdef int check_keys(object mapping, list plain, list changed) except -1:
    """Check that the keys are still different when they are read. `changed` has those that are read as others."""
    cdef set seen = set(plain)
    for key in changed:
        if key in seen:
            reason = f"a map must have each key once, found two that are read as {format_key(key)}"
            raise misfit(mapping, reason)
        seen.add(key)
    if len(seen) != len(plain) + len(changed):
        raise misfit(mapping, f"a map must have each key once, found one twice in a {type_name(mapping)}")
    return 0


cdef int put_constant(PyObject* value, OutputBuffer out) except -1:
    reserve(out, 1)
    if value == Py_None:
        put_nil(out.data + out.end)
    else:
        put_bool(out.data + out.end, value == Py_True)
    out.end += 1
    return 0


cdef inline int put_float(PyObject* number, OutputBuffer out) except -1:
    reserve(out, 9)
    put_double(out.data + out.end, PyFloat_AS_DOUBLE(number))
    out.end += 9
    return 0


cdef inline int put_text(PyObject* text, OutputBuffer out) except -1:
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef char* p
    if not PyUnicode_IS_COMPACT_ASCII(text):
        return put_non_ascii_text(text, out)
    reserve(out, length + 5)
    p = put_str_header(out.data + out.end, length32(length, "a str"))
    copy_short(p, <const char*>PyUnicode_DATA(text), length)
    out.end = p + length - out.data
    return 0


cdef int put_non_ascii_text(PyObject* text, OutputBuffer out) except -1:
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef int kind = PyUnicode_KIND(text)
    cdef void* data = PyUnicode_DATA(text)
    cdef Py_ssize_t size = utf8_size(kind, data, length)
    cdef char* p
    if size < 0:
        raise misfit(
            <object>text, f"a str must be valid Unicode, found the surrogate {(<object>text)[-1 - size]!r} at "
            f"index {-1 - size}"
        )
    reserve(out, size + 5)
    p = put_str_header(out.data + out.end, length32(size, "a str"))
    out.end = put_utf8(p, kind, data, length) - out.data
    return 0


cdef inline bint put_integer(PyObject* number, OutputBuffer out) except -1:
    """Pack an int; return False if it has more than 64 bits."""
    cdef int overflow
    cdef int64_t small = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow:
        return put_large_integer(number, out)
    reserve(out, 9)
    out.end = put_int(out.data + out.end, small) - out.data
    return True


cdef bint put_large_integer(PyObject* number, OutputBuffer out) except -1:
    if not 0 <= <object>number <= UINT64_MAX:
        return False
    reserve(out, 9)
    out.end = put_uint(out.data + out.end, PyLong_AsUnsignedLongLong(number)) - out.data
    return True


cdef inline bint put_scalar(PyObject* value, OutputBuffer out) except -1:
    """Pack a str, int, float, None or bool; return False for another type, or for an int that is too large.

    No Python code runs here, so the caller may pass a borrowed reference.
    """
    if PyUnicode_CheckExact(value):
        put_text(value, out)
        return True
    if PyLong_CheckExact(value):
        return put_integer(value, out)
    if PyFloat_CheckExact(value):
        put_float(value, out)
        return True
    if value == Py_None or value == Py_True or value == Py_False:
        put_constant(value, out)
        return True
    return False


cdef class Packer:
    """Packs types that MessagePack has. For other types it packs the result of `default` instead."""

    cdef int pack_all(self, object value, OutputBuffer out) except -1:
        """Pack a whole value."""
        return self.pack(value, out, outer_depth)

    cdef int pack(self, object value, OutputBuffer out, int depth) except -1:
        if put_scalar(<PyObject*>value, out):
            return 0
        if depth >= MAX_DEPTH:
            raise EncodeError(f"nested more than {MAX_DEPTH} levels deep, or a container holds itself")
        if FREE_THREADED and (PyDict_CheckExact(value) or PyList_CheckExact(value)):
            return self.pack_locked(value, out, depth + 1)
        if PyDict_CheckExact(value):
            return self.pack_dict(<dict>value, out, depth + 1)
        if PyList_CheckExact(value):
            return self.pack_list(<list>value, out, depth + 1)
        if PyBytes_CheckExact(value):
            return self.pack_binary(value, out)
        if PyTuple_CheckExact(value):
            return self.pack_tuple(<tuple>value, out, depth + 1)
        return self.pack_other(value, out, depth)

    cdef int pack_locked(self, object value, OutputBuffer out, int depth) except -1:
        """Pack a dict or a list while no other thread changes it."""
        with cython.critical_section(value):
            if PyDict_CheckExact(value):
                return self.pack_dict(<dict>value, out, depth)
            return self.pack_list(<list>value, out, depth)

    cdef int pack_binary(self, object value, OutputBuffer out) except -1:
        cdef Py_buffer view
        cdef char* p
        if PyBytes_Check(value):
            reserve(out, PyBytes_GET_SIZE(value) + 5)
            p = put_bin_header(out.data + out.end, length32(PyBytes_GET_SIZE(value), "bytes"))
            out.end = p - out.data
            return out.append(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        try:
            PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        except (BufferError, ValueError) as error:
            raise misfit(value, f"a {type_name(value)} must be a contiguous buffer: {error}") from error
        try:
            reserve(out, view.len + 5)
            p = put_bin_header(out.data + out.end, length32(view.len, "a buffer"))
            out.end = p - out.data
            return out.append(<const char*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef int pack_dict(self, dict mapping, OutputBuffer out, int depth) except -1:
        cdef Py_ssize_t count = PyDict_GET_SIZE(mapping)
        cdef Py_ssize_t packed = 0
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t here = 0
        cdef PyObject* next_key
        cdef PyObject* next_value
        cdef object value
        reserve(out, 5)
        out.end = put_map_header(out.data + out.end, length32(count, "a dict")) - out.data
        while PyDict_Next(mapping, &position, &next_key, &next_value):
            if not put_scalar(next_key, out):
                return self.pack_other_keys(mapping, out, depth, here, count - packed)
            packed += 1
            here = position
            if put_scalar(next_value, out):
                continue
            value = <object>next_value
            self.pack(value, out, depth)
            if PyDict_GET_SIZE(mapping) != count:
                break
        if packed != count or PyDict_GET_SIZE(mapping) != count:
            raise_size_changed("a dict")
        return 0

    cdef int pack_other_keys(
        self, dict mapping, OutputBuffer out, int depth, Py_ssize_t position, Py_ssize_t left
    ) except -1:
        """Pack the rest of a dict, from its first key that put_scalar() does not pack."""
        cdef Py_ssize_t count = PyDict_GET_SIZE(mapping)
        cdef Py_ssize_t begin
        cdef list changed = []
        cdef PyObject* next_key
        cdef PyObject* next_value
        cdef object key
        cdef object value
        while PyDict_Next(mapping, &position, &next_key, &next_value):
            # Hold references, because packing the key can run code that removes both from the dict.
            key = <object>next_key
            value = <object>next_value
            left -= 1
            begin = out.end
            self.pack(key, out, depth)
            if type(key) not in PLAIN_TYPES and not reads_back_equal(key):
                changed.append(decoded_key(key, out, begin))
            self.pack(value, out, depth)
            if PyDict_GET_SIZE(mapping) != count:
                break
        if left != 0 or PyDict_GET_SIZE(mapping) != count:
            raise_size_changed("a dict")
        if changed:
            plain = [key for key in mapping if type(key) in PLAIN_TYPES or reads_back_equal(key)]
            check_keys(mapping, plain, changed)
        return 0

    cdef int pack_pairs(self, object mapping, OutputBuffer out, int depth) except -1:
        cdef Py_ssize_t count = len(mapping)
        cdef Py_ssize_t packed = 0
        cdef Py_ssize_t begin
        cdef list plain = []
        cdef list changed = []
        reserve(out, 5)
        out.end = put_map_header(out.data + out.end, length32(count, "a dict")) - out.data
        for key, value in mapping.items():
            begin = out.end
            self.pack(key, out, depth)
            if type(key) in PLAIN_TYPES or reads_back_equal(key):
                plain.append(key)
            else:
                changed.append(decoded_key(key, out, begin))
            self.pack(value, out, depth)
            packed += 1
        if packed != count:
            raise_size_changed(f"a {type(mapping).__name__}")
        check_keys(mapping, plain, changed)
        return 0

    cdef int pack_list(self, list items, OutputBuffer out, int depth) except -1:
        cdef Py_ssize_t count = PyList_GET_SIZE(items)
        cdef Py_ssize_t i
        cdef object item
        reserve(out, 5)
        out.end = put_array_header(out.data + out.end, length32(count, "a list")) - out.data
        for i in range(count):
            if PyList_GET_SIZE(items) != count:
                raise_size_changed("a list")
            if not put_scalar(PyList_GET_ITEM(items, i), out):
                item = <object>PyList_GET_ITEM(items, i)
                self.pack(item, out, depth)
        if PyList_GET_SIZE(items) != count:
            raise_size_changed("a list")
        return 0

    cdef int pack_tuple(self, tuple items, OutputBuffer out, int depth) except -1:
        cdef Py_ssize_t count = PyTuple_GET_SIZE(items)
        cdef Py_ssize_t i
        reserve(out, 5)
        out.end = put_array_header(out.data + out.end, length32(count, "a tuple")) - out.data
        for i in range(count):
            self.pack(<object>PyTuple_GET_ITEM(items, i), out, depth)
        return 0

    cdef int pack_ext(self, object code, object data, OutputBuffer out) except -1:
        cdef int number = code
        cdef char* p
        if not PyBytes_Check(data) or not 0 <= number <= 127:
            raise EncodeError(
                "an ExtType must have a code from 0 to 127 (MessagePack reserves the others) and bytes, "
                f"found the code {number} and {type_name(data)}"
            )
        reserve(out, PyBytes_GET_SIZE(data) + 6)
        p = put_ext_header(out.data + out.end, number, length32(PyBytes_GET_SIZE(data), "an ExtType"))
        out.end = p - out.data
        return out.append(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int pack_datetime(self, object value, OutputBuffer out) except -1:
        try:
            delta = value - EPOCH
        except TypeError:
            # The tzinfo returned None as the offset.
            raise misfit(value, unsupported_reason(value)) from None
        return self.pack_timestamp(
            value, <int64_t>delta.days * 86400 + <int64_t>delta.seconds, <uint32_t>delta.microseconds * 1000, out
        )

    cdef int pack_timestamp(self, object value, int64_t seconds, uint32_t nanoseconds, OutputBuffer out) except -1:
        if not FIRST_SECOND <= seconds <= LAST_SECOND:
            raise misfit(value, f"a point in time must be within the years 1 to 9999 in UTC, found {value}")
        reserve(out, 15)
        out.end = put_timestamp(out.data + out.end, seconds, nanoseconds) - out.data
        return 0

    cdef int pack_other(self, object value, OutputBuffer out, int depth) except -1:
        if self.pack_known(value, out, depth):
            return 0
        if self.default is None:
            raise misfit(value, unsupported_reason(value))
        replacement = self.call_default(value, depth)
        origin = f"(returned by default() for {type_name(value)})"
        try:
            if self.pack_known(replacement, out, depth):
                return 0
        except EncodeError as error:
            found = placed(error, replacement)
            raise misfit(value, f"{found.reason} {origin}") from found.__cause__
        raise misfit(value, f"{unsupported_reason(replacement)} {origin}")

    cdef object call_default(self, object value, int depth):
        global outer_depth
        cdef int own = depth - outer_depth
        outer_depth += own
        try:
            return self.default(value)
        except EncodeError as error:
            error.misfit = value
            raise
        except Exception as error:
            reason = f"default() failed on {type_name(value)}: {format_error(error)}"
            if PyLong_Check(value) or PyDateTime_CheckExact(value):
                # MessagePack has these types, but not this value.
                reason = f"{unsupported_reason(value)} ({reason})"
            raise misfit(value, reason) from error
        finally:
            outer_depth -= own

    cdef bint pack_known(self, object value, OutputBuffer out, int depth) except -1:
        """Pack a value of a type that MessagePack has, or of a subclass; return False for other types.

        The order of the tests is msgpack-python's. It decides for a class with several of these types as bases.
        """
        if value is None or value is True or value is False:
            put_constant(<PyObject*>value, out)
        elif PyLong_Check(value):
            return put_integer(<PyObject*>value, out)
        elif PyFloat_Check(value):
            put_float(<PyObject*>value, out)
        elif PyBytes_Check(value) or PyByteArray_Check(value):
            self.pack_binary(value, out)
        elif PyUnicode_Check(value):
            put_text(<PyObject*>value, out)
        elif PyDict_Check(value):
            self.pack_pairs(value, out, depth + 1)
        elif isinstance(value, ExtType):
            self.pack_ext(value.code, value.data, out)
        elif type(value) is Timestamp:
            self.pack_timestamp(value, value.seconds, value.nanoseconds, out)
        elif PyTuple_Check(value) or PyList_Check(value):
            self.pack_tuple(tuple(value), out, depth + 1)
        elif PyMemoryView_Check(value):
            self.pack_binary(value, out)
        elif PyDateTime_CheckExact(value) and value.tzinfo is not None:
            self.pack_datetime(value, out)
        else:
            return False
        return True
