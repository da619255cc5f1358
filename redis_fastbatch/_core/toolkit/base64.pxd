# cython: language_level=3
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef int put_base64(OutputBuffer out, const unsigned char* data, Py_ssize_t size) except -1
cdef object take_base64(const char* text, Py_ssize_t size)
