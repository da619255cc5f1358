# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.resp.expiry cimport ItemExpiry


cdef class RowTimes:
    """The expiry of each row of a table."""

    cdef ItemExpiry expiry
    cdef Column* column     # that has the times; NULL if they differ only at random

    cdef int bind(self, Column* column) except -1
    cdef int64_t at(self, int64_t row) except -1 nogil
    cdef int refuse(self, int64_t at) except -1
