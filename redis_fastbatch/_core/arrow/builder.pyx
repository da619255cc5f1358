# cython: language_level=3
"""Builds columns from MessagePack maps: each value goes from the received bytes into the buffers of its column.

A column gets its type from the first value that is not null, unless the type was given. Ints become floats if
floats follow, timestamps get a finer unit if one needs it, and no other type changes. The length in a header is
not trusted before the bytes are there.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_RawFree
from libc.stdint cimport INT64_MAX, INT64_MIN, int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.memory cimport append_zeros, push8, push64, reserve_memory
from redis_fastbatch._core.arrow.numbers cimport as_double, has_digits, in_ticks, is_within
from redis_fastbatch._core.arrow.reading cimport Reading, fail, need, skip, take_length, take_name
from redis_fastbatch._core.msgpack.bigendian cimport big16, big32, big64
from redis_fastbatch._core.runtime.utf8 cimport is_ascii, same_bytes

import msgpack

cdef enum:
    MAX_DEPTH = 64
    GIGA = 1_000_000_000

cdef dict SHAPES = {
    "null": BLANK, "bool": BOOLS, "int": INTS, "uint": UINTS, "float16": FLOATS, "float32": FLOATS,
    "float64": FLOATS, "text": TEXTS, "binary": BINARIES, "instant": INSTANTS, "list": LISTS, "struct": STRUCTS,
    "map": MAPS,
}
cdef dict SHAPE_NAMES = {
    BLANK: "nulls", BOOLS: "bools", INTS: "ints", UINTS: "ints", FLOATS: "floats", TEXTS: "strings",
    BINARIES: "binaries", INSTANTS: "timestamps", LISTS: "lists", STRUCTS: "maps", MAPS: "maps",
}


cdef inline bint has_offsets(int shape) noexcept:
    return shape == TEXTS or shape == BINARIES or shape == LISTS or shape == MAPS


cdef class ColumnBuilder:
    """A column of a table or of a struct, or the items of a list.

    Args:
        name: the column's name.
        shape: the type that the values must have: "null", "bool", "int", "uint", "float16", "float32", "float64",
            "text", "binary", "instant", "list", "struct" or "map". None takes it from the values. Floats are kept
            as float64; those too large for a narrower type fail.
        children: the fields of a struct, the items of a list, the keys and values of a map.
        unit: ticks per second of an instant.
    """

    def __init__(self, str name, shape=None, list children=None, int64_t unit=1_000_000):
        self.name = name
        self.tag = msgpack.packb(name, unicode_errors="surrogateescape")
        self.unit = unit
        self.digits = 53
        self.children = []
        self.places = {}
        if shape is None:
            return
        self.take_shape(SHAPES[shape])
        self.fixed = True
        self.digits = 24 if shape == "float32" else 11 if shape == "float16" else 53
        if children is not None:
            self.children = children
            self.places = {child.name.encode("utf-8", "surrogateescape"): child for child in children}

    def __dealloc__(self):
        PyMem_RawFree(self.valid.data)
        PyMem_RawFree(self.values.data)
        PyMem_RawFree(self.offsets.data)

    cdef int wrong_value(self, Reading* r, str found) except -1:
        if self.depth == 0:
            fail(r, f"a row must be a map, found {found}")
        return fail(r, f"field {self.name!r} holds {SHAPE_NAMES[self.shape]}, found {found}")

    cdef int take_shape(self, int shape) except -1:
        """Give a column that has only nulls this shape."""
        self.shape = shape
        if has_offsets(shape):
            append_zeros(&self.offsets, 8 * (self.length + 1))
        if shape == BOOLS:
            append_zeros(&self.values, self.length)
        elif INTS <= shape <= FLOATS or shape == INSTANTS:
            append_zeros(&self.values, 8 * self.length)
        return 0

    cdef ColumnBuilder new_child(self, str name, Reading* r):
        cdef ColumnBuilder child = ColumnBuilder(name)
        child.depth = self.depth + 1
        if child.depth > MAX_DEPTH:
            fail(r, f"nested more than {MAX_DEPTH} levels deep")
        return child

    cdef int set_depth(self, int depth) except -1:
        """Set the depth of this column and of all columns in it."""
        self.depth = depth
        if depth > MAX_DEPTH:
            raise ValueError(f"the schema is nested more than {MAX_DEPTH} levels deep")
        for child in self.children:
            (<ColumnBuilder>child).set_depth(depth + 1)
        return 0

    cdef int append_nulls(self, int64_t count) except -1:
        cdef int64_t i
        for i in range(count):
            self.append_null()
        return 0

    cdef int append_null(self) except -1:
        cdef uint64_t last
        push8(&self.valid, 0)
        self.length += 1
        self.nulls += 1
        if has_offsets(self.shape):
            memcpy(&last, self.offsets.data + self.offsets.size - 8, 8)
            push64(&self.offsets, last)
        elif self.shape == BOOLS:
            push8(&self.values, 0)
        elif self.shape == STRUCTS:
            for child in self.children:
                (<ColumnBuilder>child).append_null()
        elif self.shape != BLANK:
            push64(&self.values, 0)
        return 0

    cdef inline int append_word(self, uint64_t word) except -1:
        push64(&self.values, word)
        push8(&self.valid, 1)
        self.length += 1
        return 0

    cdef int append_bytes(self, const uint8_t* data, Py_ssize_t size) except -1:
        reserve_memory(&self.values, size)
        if size:
            memcpy(self.values.data + self.values.size, data, size)
        self.values.size += size
        push64(&self.offsets, self.values.size)
        push8(&self.valid, 1)
        self.length += 1
        return 0

    cdef int other_shape(self, Reading* r, int found) except -1:
        """Handle a value of another shape than the column's: the first value sets the shape, a later one fails."""
        if self.shape != BLANK or self.fixed:
            r.p -= 1
            self.wrong_value(r, SHAPE_NAMES[found])
        return self.take_shape(found)

    cdef int append(self, Reading* r) except -1:
        """Read one value."""
        cdef unsigned int marker
        if r.p >= r.end:
            fail(r, "expected a value, found the end of the data")
        marker = r.p[0]
        r.p += 1
        if marker < 0x80:
            return self.append_int(r, marker)
        if marker >= 0xE0:
            return self.append_int(r, <int64_t>marker - 0x100)
        if marker >= 0xC0:
            return self.append_marked(r, marker)
        if marker >= 0xA0:
            return self.append_text(r, marker & 0x1F)
        if marker >= 0x90:
            return self.append_list(r, marker & 0x0F)
        return self.append_map(r, marker & 0x0F)

    cdef int append_marked(self, Reading* r, unsigned int marker) except -1:
        cdef const uint8_t* p = r.p
        cdef float single
        cdef double number
        cdef uint32_t bits32
        cdef uint64_t bits64
        if marker == 0xC0:
            return self.append_null()
        if marker == 0xC2 or marker == 0xC3:
            if self.shape != BOOLS:
                self.other_shape(r, BOOLS)
            push8(&self.values, marker == 0xC3)
            push8(&self.valid, 1)
            self.length += 1
            return 0
        if marker == 0xCB:
            need(r, 8)
            r.p += 8
            bits64 = big64(p)
            if self.shape == FLOATS and self.digits == 53:
                return self.append_word(bits64)
            memcpy(&number, &bits64, 8)
            return self.append_float(r, number)
        if marker == 0xCA:
            need(r, 4)
            r.p += 4
            bits32 = big32(p)
            memcpy(&single, &bits32, 4)
            return self.append_float(r, single)
        if 0xCC <= marker <= 0xD3:
            need(r, 1 << (marker & 3))
            r.p += 1 << (marker & 3)
            if marker == 0xCC:
                return self.append_int(r, p[0])
            if marker == 0xCD:
                return self.append_int(r, big16(p))
            if marker == 0xCE:
                return self.append_int(r, big32(p))
            if marker == 0xCF:
                return self.append_uint(r, big64(p))
            if marker == 0xD0:
                return self.append_int(r, <int8_t>p[0])
            if marker == 0xD1:
                return self.append_int(r, <int16_t>big16(p))
            if marker == 0xD2:
                return self.append_int(r, <int32_t>big32(p))
            return self.append_int(r, <int64_t>big64(p))
        if 0xD9 <= marker <= 0xDB:
            return self.append_text(r, take_length(r, 1 << (marker - 0xD9)))
        if marker == 0xDC or marker == 0xDD:
            return self.append_list(r, take_length(r, 2 << (marker - 0xDC)))
        if marker == 0xDE or marker == 0xDF:
            return self.append_map(r, take_length(r, 2 << (marker - 0xDE)))
        if 0xC4 <= marker <= 0xC6:
            return self.append_binary(r, take_length(r, 1 << (marker - 0xC4)))
        if 0xC7 <= marker <= 0xC9:
            return self.append_ext(r, take_length(r, 1 << (marker - 0xC7)))
        if 0xD4 <= marker <= 0xD8:
            return self.append_ext(r, 1 << (marker - 0xD4))
        r.p -= 1
        return fail(r, "expected MessagePack, found the byte 0xc1, which it never uses")

    cdef int append_int(self, Reading* r, int64_t number) except -1:
        cdef double as_float = 0
        cdef uint64_t bits
        if self.shape == BLANK:
            self.other_shape(r, INTS)
        if self.shape == INTS:
            self.negative |= number < 0
            return self.append_word(<uint64_t>number)
        if self.shape == FLOATS:
            if not as_double(False, <uint64_t>number, &as_float) or not has_digits(as_float, self.digits):
                self.wrong_value(r, f"the int {number}, which {self.float_name()} cannot hold exactly")
            memcpy(&bits, &as_float, 8)
            return self.append_word(bits)
        if self.shape != UINTS or number < 0:
            self.wrong_value(r, f"the int {number}")
        return self.append_word(<uint64_t>number)

    cdef int append_uint(self, Reading* r, uint64_t number) except -1:
        cdef double as_float = 0
        cdef uint64_t bits
        if number <= <uint64_t>INT64_MAX:
            return self.append_int(r, <int64_t>number)
        if self.shape == BLANK:
            self.other_shape(r, UINTS)
        if self.shape == INTS and not self.fixed and not self.negative:
            self.shape = UINTS
        if self.shape == UINTS:
            return self.append_word(number)
        if self.shape != FLOATS:
            self.wrong_value(r, f"the int {number}")
        if not as_double(True, number, &as_float) or not has_digits(as_float, self.digits):
            self.wrong_value(r, f"the int {number}, which {self.float_name()} cannot hold exactly")
        memcpy(&bits, &as_float, 8)
        return self.append_word(bits)

    cdef int append_float(self, Reading* r, double number) except -1:
        cdef uint64_t bits
        if self.shape == BLANK:
            self.other_shape(r, FLOATS)
        if (self.shape == INTS or self.shape == UINTS) and not self.fixed:
            self.become_floats(r)
        if self.shape != FLOATS:
            self.wrong_value(r, f"the float {number!r}")
        if not is_within(number, self.digits):
            self.wrong_value(r, f"the float {number!r}, which is too large for {self.float_name()}")
        memcpy(&bits, &number, 8)
        return self.append_word(bits)

    def float_name(self):
        """Return Arrow's name for floats of `digits` bits of significand."""
        return {11: "float16", 24: "float32", 53: "float64"}[self.digits]

    cdef int become_floats(self, Reading* r) except -1:
        """Convert the ints so far to floats; fail if one would change."""
        cdef int64_t i
        cdef uint64_t* words = <uint64_t*>self.values.data
        cdef double number = 0
        for i in range(self.length):
            if not as_double(self.shape == UINTS, words[i], &number):
                self.wrong_value(r, "a float; ints in it are too large to become floats")
        for i in range(self.length):
            as_double(self.shape == UINTS, words[i], &number)
            memcpy(&words[i], &number, 8)
        self.shape = FLOATS
        return 0

    cdef int become_finer(self, Reading* r) except -1:
        """Convert the timestamps so far to nanoseconds; fail if one is out of range."""
        cdef int64_t factor = GIGA // self.unit
        cdef int64_t i
        cdef int64_t* ticks = <int64_t*>self.values.data
        for i in range(self.length):
            if not INT64_MIN // factor <= ticks[i] <= INT64_MAX // factor:
                self.wrong_value(r, "one with nanoseconds; others in it are out of the range of nanoseconds")
        for i in range(self.length):
            ticks[i] *= factor
        self.unit = GIGA
        return 0

    cdef int append_text(self, Reading* r, Py_ssize_t size) except -1:
        need(r, size)
        if self.shape != TEXTS:
            self.other_shape(r, TEXTS)
        if not is_ascii(<const char*>r.p, size):
            # Readers of the column rely on UTF-8, which Arrow's format requires.
            try:
                (<const char*>r.p)[:size].decode("utf-8")
            except UnicodeDecodeError as error:
                r.p += <Py_ssize_t>error.start
                fail(r, f"expected UTF-8 in a str, found the byte 0x{r.p[0]:02x}: {error.reason}")
        self.append_bytes(r.p, size)
        r.p += size
        return 0

    cdef int append_binary(self, Reading* r, Py_ssize_t size) except -1:
        need(r, size)
        if self.shape != BINARIES:
            self.other_shape(r, BINARIES)
        self.append_bytes(r.p, size)
        r.p += size
        return 0

    cdef int append_ext(self, Reading* r, Py_ssize_t size) except -1:
        """Read a timestamp, which is the only extension that a column can hold."""
        cdef const uint8_t* p = r.p + 1
        cdef int64_t ticks = 0
        cdef int64_t seconds = 0
        cdef int64_t nanoseconds = 0
        need(r, size + 1)
        if <int8_t>r.p[0] != -1:
            fail(r, f"expected the timestamp, which is extension type -1, found extension type {<int8_t>r.p[0]}")
        if self.shape != INSTANTS:
            self.other_shape(r, INSTANTS)
        if size == 4:
            seconds = big32(p)
        elif size == 8:
            nanoseconds = <int64_t>(big64(p) >> 34)
            seconds = <int64_t>(big64(p) & <uint64_t>0x3FFFFFFFF)
        elif size == 12:
            nanoseconds = big32(p)
            seconds = <int64_t>big64(p + 4)
        else:
            fail(r, f"expected a timestamp of 4, 8 or 12 bytes, found {size}")
        if nanoseconds >= GIGA:
            fail(r, f"expected at most 999,999,999 nanoseconds in a timestamp, found {nanoseconds}")
        if nanoseconds % (GIGA // self.unit):
            if self.fixed:
                finer = f"a timestamp with {nanoseconds} nanoseconds, finer than the column's unit"
                fail(r, f"field {self.name!r} holds timestamps, found {finer}")
            self.become_finer(r)
        if not in_ticks(seconds, nanoseconds // (GIGA // self.unit), self.unit, &ticks):
            found = f"{seconds} seconds since 1970, out of the range of the column's unit"
            fail(r, f"field {self.name!r} holds timestamps, found {found}")
        r.p = p + size
        return self.append_word(<uint64_t>ticks)

    cdef int append_list(self, Reading* r, Py_ssize_t count) except -1:
        cdef ColumnBuilder items
        cdef Py_ssize_t i
        if r.end - r.p < count:
            fail(r, f"expected {count} items of an array, found {r.end - r.p} bytes")
        if self.shape != LISTS:
            self.other_shape(r, LISTS)
            self.children = [self.new_child(self.name, r)]
        items = <ColumnBuilder>self.children[0]
        for i in range(count):
            items.append(r)
        push64(&self.offsets, items.length)
        push8(&self.valid, 1)
        self.length += 1
        return 0

    cdef int append_map(self, Reading* r, Py_ssize_t count) except -1:
        if (r.end - r.p) >> 1 < count:
            fail(r, f"expected {count} pairs of a map, found {r.end - r.p} bytes")
        if self.shape == MAPS:
            return self.append_entries(r, count)
        if self.shape != STRUCTS:
            self.other_shape(r, STRUCTS)
        return self.append_struct(r, count)

    cdef int append_entries(self, Reading* r, Py_ssize_t count) except -1:
        cdef ColumnBuilder keys = <ColumnBuilder>self.children[0]
        cdef ColumnBuilder values = <ColumnBuilder>self.children[1]
        cdef Py_ssize_t i
        for i in range(count):
            keys.append(r)
            values.append(r)
        if keys.nulls:
            fail(r, "the key of a map must not be null in Arrow, found nil")
        push64(&self.offsets, keys.length)
        push8(&self.valid, 1)
        self.length += 1
        return 0

    cdef int append_struct(self, Reading* r, Py_ssize_t count) except -1:
        cdef ColumnBuilder child
        cdef Py_ssize_t size
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t known = PyList_GET_SIZE(self.children)
        # Rows of a table mostly have the same fields in the same order. Look up no name as long as they do.
        while done < count and i < known:
            child = <ColumnBuilder>PyList_GET_ITEM(self.children, i)
            size = PyBytes_GET_SIZE(child.tag)
            if r.end - r.p < size or not same_bytes(<const char*>r.p, PyBytes_AS_STRING(child.tag), size):
                break
            r.p += size
            child.append(r)
            i += 1
            done += 1
        while done < count:
            child = self.field(r)
            if child is None:
                skip(r, 0)
            elif child.length > self.length:
                fail(r, f"a map must have each field once, found {child.name!r} twice")
            else:
                child.append(r)
            done += 1
        if i < PyList_GET_SIZE(self.children):
            for other in self.children:
                if (<ColumnBuilder>other).length == self.length:
                    (<ColumnBuilder>other).append_null()
        push8(&self.valid, 1)
        self.length += 1
        return 0

    cdef ColumnBuilder field(self, Reading* r):
        """Read a field's name, and return its column, which is made if it is new; None if it is not wanted."""
        cdef ColumnBuilder child
        cdef bytes name = take_name(r)
        child = self.places.get(name)
        if child is None and not self.fixed:
            if b"\0" in name:
                # In the C data interface a zero byte ends a name.
                fail(r, f"a field's name must not have a zero byte in a table, found {name!r}")
            child = self.new_child(name.decode("utf-8"), r)
            child.append_nulls(self.length)
            self.children.append(child)
            self.places[name] = child
        return child
