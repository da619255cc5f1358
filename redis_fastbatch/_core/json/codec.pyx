# cython: language_level=3
"""The codec `json`: compact JSON in UTF-8."""

from cpython.bytes cimport PyBytes_FromStringAndSize

from redis_fastbatch._core.codec cimport ValueCodec, place_of
from redis_fastbatch._core.json.reader cimport JsonReader
from redis_fastbatch._core.json.writer cimport JsonWriter
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.runtime.nesting cimport outer_depth
from redis_fastbatch._core.typed cimport TypedValues

import json

from redis_fastbatch._core.json.unusual import Unusual
from redis_fastbatch._core.runtime.place import default_advice, misfit, placed, type_name
from redis_fastbatch._messages import format_error
from redis_fastbatch.errors import DecodeError, EncodeError


def refuse_constant(name):
    raise ValueError(f"JSON has no {name}; use JsonCodec(allow_nan=True)")


cdef object STRICT = json.JSONDecoder(parse_constant=refuse_constant)
cdef object LENIENT = json.JSONDecoder()


cdef class PlainWriter(JsonWriter):
    """Writes JSON. For a value of a type that JSON lacks it writes the result of `default`."""

    cdef int write_unknown(self, object value, OutputBuffer out, int depth) except -1:
        if self.default is None:
            self.refuse(value, f"JSON has no type for {type_name(value)}; {default_advice(value, 'JsonCodec')}")
        replacement = self.call_default(value, depth)
        try:
            return self.write(replacement, out, depth + 1)
        except EncodeError as error:
            found = placed(error, replacement)
            raise misfit(
                value, f"{found.reason} (returned by default() for {type_name(value)})"
            ) from found.__cause__

    cdef object call_default(self, object value, int depth):
        global outer_depth
        cdef int own = depth - outer_depth
        outer_depth += own
        try:
            return self.default(value)
        except EncodeError as error:
            error.misfit = value
            raise
        except Exception as error:
            raise misfit(value, f"default() failed on {type_name(value)}: {format_error(error)}") from error
        finally:
            outer_depth -= own


cdef class JsonCodec(ValueCodec):
    """A codec that writes and reads JSON in UTF-8.

    It writes the text of `json.dumps(value, ensure_ascii=False, separators=(",", ":"))`, and reads what json.loads()
    reads, with the same results.

    Args:
        default: called with a value of a type that JSON does not have; its result is written instead of the value.
        allow_nan: write and read NaN, Infinity and -Infinity. Not every JSON parser reads them.
        type: the type of all values, as for MsgpackCodec. It excludes `allow_nan`.
    """

    def __cinit__(self):
        # Not in __init__(), because a subclass may forget to call that.
        self.writer = PlainWriter()
        self.reader = JsonReader()

    def __init__(self, default=None, *, bint allow_nan=False, type=None):
        if default is not None and not callable(default):
            raise TypeError(f"default must be callable or None, got {default.__class__.__name__}")
        if allow_nan and type is not None:
            raise ValueError("allow_nan must be False for a codec with type=: libraries for types write NaN as null")
        self.writer.default = default
        self.writer.allow_nan = allow_nan
        self.reader.allow_nan = allow_nan
        self.type = type
        self.typed = None
        if type is not None:
            # Imported late, because most programs never use it.
            from redis_fastbatch._core.type_libraries import json_functions

            self.typed = TypedValues(json_functions(type, default, JsonCodec))

    cdef tuple made_by(self):
        return JsonCodec, {
            "default": self.writer.default,
            "allow_nan": self.writer.allow_nan,
            "type": self.type,
        }

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_ssize_t start = out.end
        if self.typed is not None:
            return self.typed.encode(value, out)
        try:
            return self.writer.write(value, out, outer_depth)
        except Unusual:
            # Outside the except block, so that an exception does not carry this one.
            out.end = start
        return self.encode_slowly(value, out)

    cdef int encode_slowly(self, object value, OutputBuffer out) except -1:
        try:
            data = json.dumps(
                value,
                ensure_ascii=False,
                separators=(",", ":"),
                allow_nan=self.writer.allow_nan,
                default=self.writer.default,
            ).encode()
        except EncodeError:
            raise
        except Exception as error:
            raise EncodeError(f"json cannot write this {type(value).__name__}: {format_error(error)}") from error
        return out.append(<const char*><bytes>data, len(data))

    cdef object decode(self, const char* data, Py_ssize_t size):
        if self.typed is not None:
            return self.typed.decode(data, size)
        try:
            return self.reader.read_all(data, size)
        except (Unusual, UnicodeDecodeError):
            pass
        return self.decode_slowly(data, size)

    cdef object decode_slowly(self, const char* data, Py_ssize_t size):
        cdef bytes encoded = PyBytes_FromStringAndSize(data, size)
        try:
            # As json.loads() does, but with a decoder that is made once.
            text = encoded.decode(json.detect_encoding(encoded), "surrogatepass")
            return (LENIENT if self.reader.allow_nan else STRICT).decode(text)
        except Exception as error:
            reason = format_error(error)
            if encoded[:1] >= b"\x80":
                reason = f'{reason}; was it written with another codec, such as codec="msgpack"?'
            raise DecodeError(reason, place_of(error)) from error
