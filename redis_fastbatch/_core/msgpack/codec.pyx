# cython: language_level=3
"""The codec `msgpack`: plain MessagePack, which any MessagePack library can read."""

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker

from msgpack import ExtType


cdef class MsgpackCodec(ValueCodec):
    """A codec that writes and reads MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md).

    It writes None, bool, int of 64 bits, float, str, bytes, bytearray, memoryview, list, tuple, dict, datetime
    with a time zone (as the timestamp extension), msgpack.ExtType and msgpack.Timestamp. It also writes their
    subclasses, except those of datetime and Timestamp. It reads arrays as lists, and as tuples inside a map's key.

    Args:
        default: called with a value of any other type; its result is written instead of the value.
        ext_hook: called as `ext_hook(code, data)` for each extension that is read; msgpack.ExtType by default.
    """

    def __cinit__(self):
        # Not in __init__(), because a subclass may forget to call that.
        self.packer = Packer()
        self.unpacker = Unpacker()

    def __init__(self, default=None, ext_hook=None):
        if default is not None and not callable(default):
            raise TypeError(f"default must be callable or None, got {type(default).__name__}")
        if ext_hook is not None and not callable(ext_hook):
            raise TypeError(f"ext_hook must be callable or None, got {type(ext_hook).__name__}")
        self.packer.default = default
        self.unpacker.ext_hook = ExtType if ext_hook is None else ext_hook

    cdef tuple made_by(self):
        return MsgpackCodec, {"default": self.packer.default, "ext_hook": self.unpacker.ext_hook}

    cdef int encode(self, object value, OutputBuffer out) except -1:
        return self.packer.pack_all(value, out)

    cdef object decode(self, const char* data, Py_ssize_t size):
        return self.unpacker.unpack_all(data, size)
