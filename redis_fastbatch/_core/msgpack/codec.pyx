# cython: language_level=3
"""The codec `msgpack`: plain MessagePack, which any MessagePack library can read."""

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker
from redis_fastbatch._core.typed cimport TypedValues

from msgpack import ExtType


cdef class MsgpackCodec(ValueCodec):
    """A codec that writes and reads MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md).

    It writes None, bool, int of 64 bits, float, str, bytes, bytearray, memoryview, list, tuple, dict, datetime
    with a time zone (as the timestamp extension), msgpack.ExtType and msgpack.Timestamp. It also writes their
    subclasses, except those of datetime and Timestamp. It reads arrays as lists, and as tuples inside a map's key.

    Args:
        default: called with a value of any other type; its result is written instead of the value.
        ext_hook: called as `ext_hook(code, data)` for each extension that is read; msgpack.ExtType by default.
        type: the type of all values: a dataclass, NamedTuple, TypedDict, attrs class or msgspec Struct, a pydantic
            model or TypeAdapter, or a type made of these, such as `list[User]`. Reading gives values of this
            type, and writing needs no `default`. It needs msgspec, or pydantic for models.
    """

    def __cinit__(self):
        # Not in __init__(), because a subclass may forget to call that.
        self.packer = Packer()
        self.unpacker = Unpacker()

    def __init__(self, default=None, ext_hook=None, *, type=None):
        if default is not None and not callable(default):
            raise TypeError(f"default must be callable or None, got {default.__class__.__name__}")
        if ext_hook is not None and not callable(ext_hook):
            raise TypeError(f"ext_hook must be callable or None, got {ext_hook.__class__.__name__}")
        self.packer.default = default
        self.unpacker.ext_hook = ExtType if ext_hook is None else ext_hook
        self.type = type
        self.typed = None
        if type is not None:
            # Imported late, because most programs never use it.
            from redis_fastbatch._core.type_libraries import msgpack_functions

            self.typed = TypedValues(msgpack_functions(type, default, ext_hook, MsgpackCodec))

    cdef tuple made_by(self):
        cdef object ext_hook = self.unpacker.ext_hook
        return MsgpackCodec, {
            "default": self.packer.default,
            "ext_hook": None if ext_hook is ExtType else ext_hook,
            "type": self.type,
        }

    cdef int encode(self, object value, OutputBuffer out) except -1:
        if self.typed is not None:
            return self.typed.encode(value, out)
        return self.packer.pack_all(value, out)

    cdef object decode(self, const char* data, Py_ssize_t size):
        if self.typed is not None:
            return self.typed.decode(data, size)
        return self.unpacker.unpack_all(data, size)
