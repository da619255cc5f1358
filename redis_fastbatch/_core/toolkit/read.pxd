# cython: language_level=3
from redis_fastbatch._core.json.reader cimport JsonReader, Place


cdef class WrapperReader(JsonReader):
    """Reads JSON as the toolkit writes it."""

    cdef object read_wrapper(self, const char* data, Py_ssize_t size, bint preserve_int)
    cdef object read_data_locked(self, Place* at)
    cdef object read_data(self, Place* at)
    cdef object read_bytes(self, Place* at)
