# cython: language_level=3
from redis_fastbatch._core.arrow.builder cimport ColumnBuilder
from redis_fastbatch._core.codec cimport ValueCodec


cdef class RowsBuilder(ValueCodec):
    """Takes values that are maps, and adds each to a table as a row."""

    cdef ColumnBuilder root
    cdef bytes tag          # the prefix before MessagePack
    cdef object repack      # converts values without the tag to MessagePack
    cdef bint incomplete    # a row failed, and its columns have different lengths

    cdef int append_row(self, const char* data, Py_ssize_t size) except -1
