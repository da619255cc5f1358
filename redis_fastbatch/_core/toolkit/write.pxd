# cython: language_level=3
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef int write_wrapper(object value, OutputBuffer out) except -1
