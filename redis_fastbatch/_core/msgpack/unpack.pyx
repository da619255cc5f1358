# cython: language_level=3
"""Unpacks MessagePack.

The values are those of `msgpack.unpackb(data, raw=False, strict_map_key=False, timestamp=3)`, with one difference:
an array inside a map's key becomes a tuple, because a list cannot be a key.

The length in a header is not trusted. It must fit into the bytes that follow before memory is allocated for it.
The caller owns the bytes and keeps them in place during a call. `ext_hook` can run any code and can call this
unpacker again, so the state of a call is only in its Cursor.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.msgpack.bigendian cimport big16, big32, big64
from redis_fastbatch._core.runtime.interned cimport make_text, new_ascii, shared_float, short_str
from redis_fastbatch._core.runtime.nesting cimport outer_depth
from redis_fastbatch._core.runtime.rows cimport (
    WIDEST_ROW,
    RowShape,
    Shapes,
    fill_slot,
    finish_row,
    is_worth_learning,
    slot_of,
)
from redis_fastbatch._core.runtime.utf8 cimport is_ascii, same_bytes

import datetime

from msgpack import ExtType

from redis_fastbatch._messages import format_error
from redis_fastbatch.errors import DecodeError

cdef extern from "Python.h":
    void PyObject_GC_Track(object container)
    void PyObject_GC_UnTrack(object container)
    PyObject* new_int "PyLong_FromLong"(long value) except NULL
    PyObject* new_unsigned "PyLong_FromUnsignedLongLong"(unsigned long long value) except NULL
    PyObject* Py_None
    PyObject* Py_True
    PyObject* Py_False

cdef enum:
    MAX_DEPTH = 1024    # the limit of msgpack-python

cdef object EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


cdef int fail(Cursor* c, str reason) except -1:
    raise DecodeError(reason, c.p - c.begin)


cdef inline int need(Cursor* c, Py_ssize_t size) except -1:
    """Check that `size` more bytes follow."""
    if c.end - c.p < size:
        fail(c, f"expected {size} more bytes, found {c.end - c.p}")
    return 0


cdef inline Py_ssize_t take_length(Cursor* c, int width) except -1:
    """Read a big-endian length of 1, 2 or 4 bytes."""
    cdef Py_ssize_t length
    need(c, width)
    if width == 1:
        length = c.p[0]
    elif width == 2:
        length = big16(c.p)
    else:
        length = big32(c.p)
    c.p += width
    return length


cdef inline Py_ssize_t shape_slot(Cursor* c, Py_ssize_t count) noexcept:
    """Return the slot for the shape of a map of `count` keys; the cursor is at the first key."""
    cdef uint32_t word = 0
    cdef unsigned int size
    if c.end - c.p >= 4:
        memcpy(&word, c.p, 4)
        size = 1 + (c.p[0] & 0x1F)
        if size < 4 and (c.p[0] & 0xE0) == 0xA0:
            # Leave out the bytes after a short key: they are its value, which can differ in each map.
            word &= (<uint32_t>1 << 8 * size) - 1
    return slot_of(word, count)


cdef str trailing_bytes_reason(const char* data, Py_ssize_t size, Py_ssize_t left):
    """Return the message for bytes that continue after the value.

    Data of other programs often looks like this, because every ASCII character is a whole MessagePack int.
    """
    cdef bytes head = PyBytes_FromStringAndSize(data, min(size, 64))
    reason = f"expected one value in {size} bytes, found {left} more bytes after it"
    if head.startswith(b'{"__type__"'):
        return f'{reason}; this looks like redis-toolkit\'s format: use codec="toolkit"'
    if head[:1] in (b"{", b"[", b'"'):
        return f'{reason}; this looks like JSON: was it written with another codec, such as codec="json"?'
    if head[:1] == b"\x80" and b"\x02" <= head[1:2] <= b"\x05":
        return f"{reason}; this looks like a pickle: was it written with another codec?"
    if head.isascii() and head.decode("ascii").replace("\r", "").replace("\n", "").replace("\t", "").isprintable():
        return f'{reason}; this looks like text: was it written with SET, or with codec="raw"?'
    return f"{reason}; was it written with another codec?"


cdef bytes encoded_key(Cursor* c):
    """Return the encoded key at the cursor, if it is a str of less than 256 bytes; else empty bytes.

    The shape of a row is made only of such keys.
    """
    cdef Py_ssize_t size = 0
    if c.end - c.p >= 2:
        if (c.p[0] & 0xE0) == 0xA0:
            size = 1 + (c.p[0] & 0x1F)
        elif c.p[0] == 0xD9:
            size = 2 + c.p[1]
    return PyBytes_FromStringAndSize(<const char*>c.p, min(size, c.end - c.p))


cdef class Unpacker:
    """Unpacks values. `ext_hook(code, data)` makes the value of an extension, by default ExtType(code, data).

    The timestamp extension becomes a datetime in UTC.
    """

    def __init__(self):
        self.ext_hook = ExtType
        self.keys = Keys()
        self.texts = ShortTexts()
        self.floats = Floats()
        self.shapes = Shapes()

    cdef object unpack_all(self, const char* data, Py_ssize_t size):
        """Return the value that the bytes encode; they must hold exactly one."""
        cdef Cursor c
        c.begin = <const unsigned char*>data
        c.p = c.begin
        c.end = c.begin + size
        c.pending_items = 0
        c.depth = outer_depth
        c.in_key = False
        value = self.unpack_locked(&c) if FREE_THREADED else self.unpack(&c)
        if c.p != c.end:
            fail(&c, trailing_bytes_reason(data, size, c.end - c.p))
        return value

    cdef object unpack_locked(self, Cursor* c):
        """Unpack while no other thread uses the caches."""
        with cython.critical_section(self):
            return self.unpack(c)

    cdef object unpack(self, Cursor* c):
        cdef unsigned int marker
        if c.p >= c.end:
            fail(c, "expected a value, found the end of the data")
        marker = c.p[0]
        c.p += 1
        if marker < 0x80:
            return marker
        if marker >= 0xE0:
            return <int>marker - 0x100
        if marker >= 0xC0:
            return self.unpack_marked(c, marker)
        if marker >= 0xA0:
            return self.unpack_text(c, marker & 0x1F)
        if marker >= 0x90:
            return self.unpack_list(c, marker & 0x0F)
        return self.unpack_map(c, marker & 0x0F)

    cdef inline PyObject* unpack_plain(self, Cursor* c, unsigned int marker) except? NULL:
        """Return a new reference to the value at the cursor, if it has a common format for values in rows.

        For other formats and for invalid bytes return NULL, and do not move the cursor. The caller then uses
        unpack().
        """
        cdef const unsigned char* p = c.p + 1
        cdef Py_ssize_t left = c.end - p
        cdef Py_ssize_t size
        cdef PyObject* value
        if marker < 0x80:
            c.p = p
            return new_int(marker)
        if 0xA0 <= marker < 0xC0 or marker == 0xD9:
            if marker == 0xD9:
                if left < 1:
                    return NULL
                size = p[0]
                p += 1
                left -= 1
            else:
                size = marker & 0x1F
            if left < size:
                return NULL
            if size <= 16:
                value = short_str(self.texts, <const char*>p, size, plain=True)
            elif is_ascii(<const char*>p, size):
                value = new_ascii(<const char*>p, size)
            else:
                return NULL
            if value != NULL:
                c.p = p + size
            return value
        if marker == 0xCB and left >= 8:
            c.p = p + 8
            return shared_float(self.floats, big64(p))
        if marker == 0xCC and left >= 1:
            c.p = p + 1
            return new_int(p[0])
        if marker == 0xCD and left >= 2:
            c.p = p + 2
            return new_int(big16(p))
        if marker == 0xCE and left >= 4:
            c.p = p + 4
            return new_unsigned(big32(p))
        if marker == 0xC0 or marker == 0xC2 or marker == 0xC3:
            value = Py_None if marker == 0xC0 else (Py_True if marker == 0xC3 else Py_False)
            Py_INCREF(<object>value)
            c.p = p
            return value
        return NULL

    cdef object unpack_marked(self, Cursor* c, unsigned int marker):
        cdef const unsigned char* p = c.p
        cdef float single
        cdef uint32_t bits
        if marker == 0xC0:
            return None
        if marker == 0xC2:
            return False
        if marker == 0xC3:
            return True
        if marker == 0xCB:
            need(c, 8)
            c.p += 8
            return self.floats.get(big64(p))
        if marker == 0xCA:
            need(c, 4)
            c.p += 4
            bits = big32(p)
            memcpy(&single, &bits, 4)
            return <double>single
        if 0xCC <= marker <= 0xD3:
            need(c, 1 << (marker & 3))
            c.p += 1 << (marker & 3)
            if marker == 0xCC:
                return p[0]
            if marker == 0xCD:
                return big16(p)
            if marker == 0xCE:
                return big32(p)
            if marker == 0xCF:
                return big64(p)
            if marker == 0xD0:
                return <int8_t>p[0]
            if marker == 0xD1:
                return <int16_t>big16(p)
            if marker == 0xD2:
                return <int32_t>big32(p)
            return <int64_t>big64(p)
        if 0xD9 <= marker <= 0xDB:
            return self.unpack_text(c, take_length(c, 1 << (marker - 0xD9)))
        if marker == 0xDC or marker == 0xDD:
            return self.unpack_list(c, take_length(c, 2 << (marker - 0xDC)))
        if marker == 0xDE or marker == 0xDF:
            return self.unpack_map(c, take_length(c, 2 << (marker - 0xDE)))
        if 0xC4 <= marker <= 0xC6:
            return self.unpack_binary(c, take_length(c, 1 << (marker - 0xC4)))
        if 0xC7 <= marker <= 0xC9:
            return self.unpack_ext(c, take_length(c, 1 << (marker - 0xC7)))
        if 0xD4 <= marker <= 0xD8:
            return self.unpack_ext(c, 1 << (marker - 0xD4))
        c.p -= 1
        fail(c, 'expected MessagePack, found the byte 0xc1, which only codec="toolkit-msgpack" writes')

    cdef object unpack_text(self, Cursor* c, Py_ssize_t size):
        cdef const char* text = <const char*>c.p
        need(c, size)
        try:
            if size <= 16:
                value = self.texts.get(text, size)
            else:
                value = make_text(text, size)
        except UnicodeDecodeError as error:
            c.p += error.start
            fail(c, f"expected UTF-8 in a str, found the byte 0x{c.p[0]:02x}: {error.reason}")
        c.p += size
        return value

    cdef object unpack_key(self, Cursor* c):
        cdef Py_ssize_t size
        cdef const char* text
        if c.p >= c.end or (c.p[0] & 0xE0) != 0xA0:
            if c.p < c.end and c.p[0] < 0x80:
                return self.unpack(c)
            return self.unpack_other_key(c)
        size = c.p[0] & 0x1F
        c.p += 1
        need(c, size)
        text = <const char*>c.p
        try:
            key = self.keys.get(text, size)
        except UnicodeDecodeError as error:
            c.p += error.start
            fail(c, f"expected UTF-8 in a map's key, found the byte 0x{c.p[0]:02x}: {error.reason}")
        c.p += size
        return key

    cdef object unpack_other_key(self, Cursor* c):
        cdef bint outer = c.in_key
        c.in_key = True
        key = self.unpack(c)
        c.in_key = outer
        return key

    cdef object unpack_binary(self, Cursor* c, Py_ssize_t size):
        need(c, size)
        value = PyBytes_FromStringAndSize(<const char*>c.p, size)
        c.p += size
        return value

    cdef object unpack_list(self, Cursor* c, Py_ssize_t count):
        cdef list items
        cdef Py_ssize_t i
        cdef object item
        # The bytes after the cursor must hold the items of this list and of all enclosing lists. Otherwise a small
        # value of nested headers could make every one of them allocate memory.
        cdef Py_ssize_t pending_items = c.pending_items
        if c.end - c.p - pending_items < count:
            fail(c, f"expected {count} items of an array, found {c.end - c.p - pending_items} bytes")
        if c.depth >= MAX_DEPTH:
            fail(c, f"nested more than {MAX_DEPTH} levels deep")
        c.depth += 1
        items = PyList_New(count)
        # Until it is full, other code must not get the list from gc.get_objects().
        PyObject_GC_UnTrack(items)
        for i in range(count):
            c.pending_items = pending_items + count - i - 1
            item = self.unpack(c)
            Py_INCREF(item)
            PyList_SET_ITEM(items, i, item)
        c.pending_items = pending_items
        PyObject_GC_Track(items)
        c.depth -= 1
        return tuple(items) if c.in_key else items

    cdef object unpack_map(self, Cursor* c, Py_ssize_t count):
        cdef Py_ssize_t slot
        cdef dict row
        if (c.end - c.p) >> 1 < count:
            fail(c, f"expected {count} pairs of a map, found {c.end - c.p} bytes")
        if c.depth >= MAX_DEPTH:
            fail(c, f"nested more than {MAX_DEPTH} levels deep")
        c.depth += 1
        if 0 < count <= WIDEST_ROW:
            slot = shape_slot(c, count)
            shape = self.shapes.slots[slot]
            if shape is not None and (<RowShape>shape).count == count:
                row = self.unpack_row(c, <RowShape>shape)
            elif is_worth_learning(self.shapes, slot):
                row = self.unpack_learning(c, count, slot)
            else:
                row = self.unpack_pairs(c, {}, count)
        else:
            row = self.unpack_pairs(c, {}, count)
        c.depth -= 1
        return row

    cdef dict unpack_row(self, Cursor* c, RowShape shape):
        """Read a map that probably has the keys of `shape`."""
        cdef dict row = shape.blank()
        cdef PyObject** slots = shape.slots(row)
        cdef bint holds_containers = False
        cdef Py_ssize_t i, size
        cdef unsigned int marker
        cdef PyObject* value
        cdef object other
        for i in range(shape.count):
            size = shape.sizes[i]
            if c.end - c.p <= size or not same_bytes(<const char*>c.p, shape.keys[i], size):
                # This key differs, and the next ones may too.
                return self.unpack_pairs(c, self.shapes.missed(shape, row, i), shape.count - i)
            c.p += size
            marker = c.p[0]
            value = self.unpack_plain(c, marker)
            if value == NULL:
                holds_containers |= 0x80 <= marker < 0xA0 or 0xC7 <= marker < 0xCA or 0xD4 <= marker < 0xE0
                other = self.unpack(c)
                Py_INCREF(other)
                value = <PyObject*>other
            fill_slot(shape, row, slots, i, value)
        finish_row(shape, row, slots, holds_containers)
        return row

    cdef dict unpack_pairs(self, Cursor* c, dict row, Py_ssize_t count):
        cdef const unsigned char* place
        cdef Py_ssize_t i
        for i in range(count):
            place = c.p
            key = self.unpack_key(c)
            value = self.unpack(c)
            try:
                PyDict_SetItem(row, key, value)
            except TypeError as error:
                c.p = place
                fail(c, f"expected a hashable key of a map, found {type(key).__name__}: {error}")
        return row

    cdef dict unpack_learning(self, Cursor* c, Py_ssize_t count, Py_ssize_t slot):
        """Read a map pair by pair, and make a shape of its keys."""
        cdef dict row = {}
        cdef list encoded = []
        cdef Py_ssize_t i
        for i in range(count):
            # Copy the key first: if the bytes are a bytearray, a hook can change them while the pair is read.
            encoded.append(encoded_key(c))
            self.unpack_pairs(c, row, 1)
        if len(row) == count and set(map(type, row)) == {str} and all(encoded):
            self.shapes.learn(slot, row, encoded)
        return row

    cdef object unpack_ext(self, Cursor* c, Py_ssize_t size):
        cdef int code
        cdef const unsigned char* p
        need(c, size + 1)
        code = <int8_t>c.p[0]
        p = c.p + 1
        if code == -1:
            value = self.unpack_timestamp(c, p, size)
        else:
            value = self.call_hook(c, code, PyBytes_FromStringAndSize(<const char*>p, size))
        c.p = p + size
        return value

    cdef object call_hook(self, Cursor* c, int code, bytes data):
        global outer_depth
        cdef int own = c.depth - outer_depth
        outer_depth += own
        try:
            return self.ext_hook(code, data)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"ext_hook() failed on type {code}: {format_error(error)}", c.p - c.begin) from error
        finally:
            outer_depth -= own

    cdef object unpack_timestamp(self, Cursor* c, const unsigned char* p, Py_ssize_t size):
        cdef int64_t seconds
        cdef uint64_t nanoseconds = 0
        if size == 4:
            seconds = big32(p)
        elif size == 8:
            nanoseconds = big64(p) >> 34
            seconds = <int64_t>(big64(p) & <uint64_t>0x3FFFFFFFF)
        elif size == 12:
            nanoseconds = big32(p)
            seconds = <int64_t>big64(p + 4)
        else:
            fail(c, f"expected a timestamp of 4, 8 or 12 bytes, found {size}")
        if nanoseconds > 999_999_999:
            fail(c, f"expected at most 999,999,999 nanoseconds in a timestamp, found {nanoseconds}")
        try:
            return EPOCH + datetime.timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
        except OverflowError:
            fail(c, f"expected a timestamp in the years 1 to 9999, found {seconds} seconds since 1970")
