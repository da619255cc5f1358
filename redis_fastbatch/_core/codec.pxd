# cython: language_level=3
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef class ValueCodec:
    """Encodes a value as the bytes of a Redis string, and decodes it."""

    cdef OutputBuffer scratch

    cdef int encode(self, object value, OutputBuffer out) except -1
    cdef object decode(self, const char* data, Py_ssize_t size)
    cdef tuple made_by(self)


cdef object place_of(object error)
