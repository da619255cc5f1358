# cython: language_level=3
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.json.reader cimport JsonReader
from redis_fastbatch._core.json.writer cimport JsonWriter
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.typed cimport TypedValues


cdef class PlainWriter(JsonWriter):
    cdef object default

    cdef object call_default(self, object value, int depth)


cdef class JsonCodec(ValueCodec):
    cdef PlainWriter writer
    cdef JsonReader reader
    cdef TypedValues typed      # None: values of any type
    cdef readonly object type

    cdef int encode_slowly(self, object value, OutputBuffer out) except -1
    cdef object decode_slowly(self, const char* data, Py_ssize_t size)
