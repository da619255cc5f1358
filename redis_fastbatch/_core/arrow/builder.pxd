# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint64_t

from redis_fastbatch._core.arrow.memory cimport Memory
from redis_fastbatch._core.arrow.reading cimport Reading

cdef enum Shape:
    BLANK       # only nulls so far
    BOOLS
    INTS
    UINTS       # some are beyond int64
    FLOATS
    TEXTS
    BINARIES
    INSTANTS
    LISTS
    STRUCTS
    MAPS


cdef class ColumnBuilder:
    """A column that grows by one value at a time."""

    cdef readonly str name
    cdef bytes tag              # the name as a MessagePack str
    cdef int shape
    cdef bint fixed             # the shape was given, so that it does not follow the data
    cdef int depth              # 0 for the rows themselves
    cdef bint negative          # an int below zero was seen
    cdef int64_t unit           # of instants: ticks per second
    cdef int digits             # of floats: bits of the significand; 53 in a float64
    cdef int64_t length
    cdef int64_t nulls
    cdef Memory valid           # a byte for each value
    cdef Memory values          # 8 bytes for each value, 1 for a bool; the bytes of texts and binaries
    cdef Memory offsets         # int64, one more than there are values
    cdef list children          # the fields of a struct, the items of a list, the keys and values of a map
    cdef dict places            # the fields of a struct by name

    cdef int append(self, Reading* r) except -1
    cdef int append_null(self) except -1
    cdef int append_nulls(self, int64_t count) except -1
    cdef int take_shape(self, int shape) except -1
    cdef int other_shape(self, Reading* r, int found) except -1
    cdef int append_word(self, uint64_t word) except -1
    cdef int append_bytes(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int append_int(self, Reading* r, int64_t number) except -1
    cdef int append_uint(self, Reading* r, uint64_t number) except -1
    cdef int append_float(self, Reading* r, double number) except -1
    cdef int append_marked(self, Reading* r, unsigned int marker) except -1
    cdef int append_text(self, Reading* r, Py_ssize_t size) except -1
    cdef int append_binary(self, Reading* r, Py_ssize_t size) except -1
    cdef int append_ext(self, Reading* r, Py_ssize_t size) except -1
    cdef int append_list(self, Reading* r, Py_ssize_t count) except -1
    cdef int append_map(self, Reading* r, Py_ssize_t count) except -1
    cdef int append_struct(self, Reading* r, Py_ssize_t count) except -1
    cdef int append_entries(self, Reading* r, Py_ssize_t count) except -1
    cdef ColumnBuilder field(self, Reading* r)
    cdef int become_floats(self, Reading* r) except -1
    cdef int become_finer(self, Reading* r) except -1
    cdef int wrong_value(self, Reading* r, str found) except -1
    cdef ColumnBuilder new_child(self, str name, Reading* r)
    cdef int set_depth(self, int depth) except -1
