# cython: language_level=3
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker
from redis_fastbatch._core.toolkit.read cimport WrapperReader
from redis_fastbatch._core.toolkit.write cimport WrapperWriter


cdef class ToolkitCodec(ValueCodec):
    cdef WrapperReader reader
    cdef WrapperWriter writer
    cdef readonly bint preserve_int

    cdef object decode_plain(self, const char* data, Py_ssize_t size)


cdef class ToolkitMsgpackCodec(ToolkitCodec):
    cdef Packer packer
    cdef Unpacker unpacker


cdef class LimitedCodec(ValueCodec):
    cdef ValueCodec codec
    cdef Py_ssize_t max_value_size
    cdef Py_ssize_t max_total
    cdef object error
    cdef readonly Py_ssize_t total
