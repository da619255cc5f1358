# cython: language_level=3
from redis_fastbatch._core.json.writer cimport JsonWriter
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef class WrapperWriter(JsonWriter):
    """Writes JSON as the toolkit does."""

    cdef int write_wrapper(self, object value, OutputBuffer out) except -1
