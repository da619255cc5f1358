# cython: language_level=3
from redis_fastbatch._core.arrow.abi cimport ArrowArray, ArrowArrayStream, ArrowSchema


cdef class ArrowStream:
    """The record batches of a table, one after the other."""

    cdef ArrowArrayStream stream
    cdef ArrowSchema schema
    cdef ArrowArray batch      # from next_batch(); the next call releases it

    cdef bint next_batch(self) except -1
    cdef int failed(self, int code, str doing) except -1
    cdef int release_batch(self) except -1
