# cython: language_level=3
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker


cdef class MsgpackCodec(ValueCodec):
    cdef Packer packer
    cdef Unpacker unpacker
