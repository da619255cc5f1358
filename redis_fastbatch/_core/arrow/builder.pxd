# cython: language_level=3
from libc.stdint cimport int64_t, uint8_t, uint64_t

from redis_fastbatch._core.arrow.reading cimport Reading
from redis_fastbatch._core.codec cimport ValueCodec

cdef enum Shape:
    BLANK       # nothing but nulls so far
    BOOLS
    INTS
    UINTS       # some of them beyond int64
    FLOATS
    TEXTS
    BINARIES
    INSTANTS
    LISTS
    STRUCTS
    MAPS


cdef struct Memory:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity


cdef class ColumnBuilder:
    """One column that grows by a value at a time."""

    cdef readonly str name
    cdef bytes tag              # the name as MessagePack has it
    cdef int shape
    cdef bint settled           # the shape was asked for: it does not follow the data
    cdef int depth              # the rows themselves are at 0
    cdef bint negative          # an int below zero was seen
    cdef int64_t unit           # of instants: ticks a second
    cdef int digits             # of floats: bits of the significand; 53 in a float64
    cdef int64_t length
    cdef int64_t nulls
    cdef Memory valid           # a byte a value
    cdef Memory values          # 8 bytes a value; one for bools; texts' and binaries' bytes
    cdef Memory offsets         # int64, one more than values
    cdef list children          # a struct's fields, a list's items, a map's keys and values
    cdef dict places            # of a struct's fields, by name

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
    cdef int misfit(self, Reading* r, str found) except -1
    cdef ColumnBuilder new_child(self, str name, Reading* r)
    cdef int settle(self, int depth) except -1


cdef class RowsBuilder(ValueCodec):
    """Takes values that are maps as the rows of a table."""

    cdef ColumnBuilder root
    cdef bytes tag          # goes before MessagePack
    cdef object repack      # makes MessagePack of what does not begin with the tag
    cdef bint broken

    cdef int append_row(self, const char* data, Py_ssize_t size) except -1
