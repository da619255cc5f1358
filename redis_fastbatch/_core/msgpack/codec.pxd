# cython: language_level=3
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker
from redis_fastbatch._core.typed cimport TypedValues


cdef class MsgpackCodec(ValueCodec):
    cdef Packer packer
    cdef Unpacker unpacker
    cdef TypedValues typed      # None: values of any type
    cdef readonly object type
