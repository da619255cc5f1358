# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.resp.encoder cimport Chunk


cdef class TableChunk(Chunk):
    """A chunk of commands that carry rows. Keys and values are made for Python only when they are read."""

    cdef int64_t* rows      # the number of each row, counted over all batches
    cdef Py_ssize_t rows_capacity
    cdef object row_codec

    cdef int add_row(self, int64_t row) except -1 nogil
    cdef int more_rows(self) except -1 nogil
