# cython: language_level=3
from redis_fastbatch._core.arrow.abi cimport ArrowArray, ArrowArrayStream, ArrowSchema


cdef class ArrowStream:
    """Record batches, one after the other."""

    cdef ArrowArrayStream stream
    cdef ArrowSchema schema
    cdef ArrowArray batch      # the one that next_batch() got; released with the next one

    cdef bint next_batch(self) except -1
    cdef int failed(self, int code, str doing) except -1
    cdef int release_batch(self) except -1
