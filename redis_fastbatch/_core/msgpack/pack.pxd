# cython: language_level=3
from libc.stdint cimport int64_t, uint32_t

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef class Packer:
    """Packs Python values as MessagePack."""

    cdef object default

    cdef int pack_all(self, object value, OutputBuffer out) except -1
    cdef int pack(self, object value, OutputBuffer out, int depth) except -1
    cdef int pack_locked(self, object value, OutputBuffer out, int depth) except -1
    cdef int pack_binary(self, object value, OutputBuffer out) except -1
    cdef int pack_dict(self, dict mapping, OutputBuffer out, int depth) except -1
    cdef int pack_other_keys(
        self, dict mapping, OutputBuffer out, int depth, Py_ssize_t position, Py_ssize_t left
    ) except -1
    cdef int pack_pairs(self, object mapping, OutputBuffer out, int depth) except -1
    cdef int pack_list(self, list items, OutputBuffer out, int depth) except -1
    cdef int pack_tuple(self, tuple items, OutputBuffer out, int depth) except -1
    cdef int pack_ext(self, object code, object data, OutputBuffer out) except -1
    cdef int pack_datetime(self, object value, OutputBuffer out) except -1
    cdef int pack_timestamp(self, object value, int64_t seconds, uint32_t nanoseconds, OutputBuffer out) except -1
    cdef int pack_other(self, object value, OutputBuffer out, int depth) except -1
    cdef object call_default(self, object value, int depth)
    cdef bint pack_known(self, object value, OutputBuffer out, int depth) except -1
