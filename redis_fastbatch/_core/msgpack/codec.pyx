# cython: language_level=3
"""The codec `msgpack`: plain MessagePack that any reader reads."""

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker

from msgpack import ExtType


cdef class MsgpackCodec(ValueCodec):
    """MessagePack both ways (https://github.com/msgpack/msgpack/blob/master/spec.md).

    Writes None, bool, int of 64 bits, float, str, bytes, bytearray, memoryview, list, tuple, dict, aware
    datetime (the timestamp extension), msgpack.ExtType and msgpack.Timestamp; subclasses of these too, but of
    datetime and Timestamp. Arrays are read as lists, in a map's keys as tuples.

    Args:
        default: called with a value of any other type; what it returns is written in its place.
        ext_hook: called as `ext_hook(code, data)` for an extension read; msgpack.ExtType by default.
    """

    def __cinit__(self):
        # Not by __init__(), which a subclass may forget to call.
        self.packer = Packer()
        self.unpacker = Unpacker()

    def __init__(self, default=None, ext_hook=None):
        if default is not None and not callable(default):
            raise TypeError("default must be callable")
        if ext_hook is not None and not callable(ext_hook):
            raise TypeError("ext_hook must be callable")
        self.packer.default = default
        self.unpacker.ext_hook = ExtType if ext_hook is None else ext_hook

    cdef tuple made_by(self):
        return MsgpackCodec, {"default": self.packer.default, "ext_hook": self.unpacker.ext_hook}

    cdef int encode(self, object value, OutputBuffer out) except -1:
        return self.packer.pack_all(value, out)

    cdef object decode(self, const char* data, Py_ssize_t size):
        return self.unpacker.unpack_all(data, size)
