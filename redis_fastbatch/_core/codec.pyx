# cython: language_level=3
"""The base of every codec: encodes a value into the output buffer, and decodes received bytes."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)

from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer

from redis_fastbatch._core.runtime import gc_pause
from redis_fastbatch._core.runtime.place import placed
from redis_fastbatch._messages import format_error
from redis_fastbatch.errors import DecodeError, EncodeError

cdef enum:
    SCRATCH_KEPT = 64 * 1024
    GC_INTERVAL = 1000   # values decoded between two reports to the pause of the garbage collector


cdef class ValueCodec:
    """Base of the compiled codecs. Subclasses write `encode` and `decode`."""

    cdef int encode(self, object value, OutputBuffer out) except -1:
        raise NotImplementedError(f"{type(self).__name__} has no encode")

    cdef object decode(self, const char* data, Py_ssize_t size):
        raise NotImplementedError(f"{type(self).__name__} has no decode")

    cdef tuple made_by(self):
        """Return the compiled class, and the arguments of its __init__() that make an equal codec."""
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled")

    def __reduce__(self):
        return restored, (type(self), *self.made_by(), getattr(self, "__dict__", None))

    def dumps(self, value):
        """Return `value` as bytes.

        Raises:
            EncodeError: this codec cannot write the value.
        """
        # Taken while in use: code of `value` may call dumps() again, and so may other threads.
        cdef OutputBuffer out = None
        if not FREE_THREADED:
            out = self.scratch
            self.scratch = None
        if out is None:
            out = OutputBuffer()
        out.reset(0)
        try:
            self.encode(value, out)
        except EncodeError as error:
            raise placed(error, value)
        data = PyBytes_FromStringAndSize(out.data, out.end)
        if not FREE_THREADED:
            out.shrink(SCRATCH_KEPT)
            self.scratch = out
        return data

    def dumps_many(self, values):
        """Return a list of the bytes of each of `values`, an iterable.

        Raises:
            EncodeError: this codec cannot write one of the values.
        """
        cdef OutputBuffer out = OutputBuffer()
        cdef list encoded = []
        value = None
        try:
            for value in values:
                out.reset(0)
                self.encode(value, out)
                encoded.append(PyBytes_FromStringAndSize(out.data, out.end))
        except EncodeError as error:
            raise placed(error, value)
        return encoded

    def loads(self, data):
        """Return the value of `data`: bytes, or any object with a contiguous buffer.

        Raises:
            DecodeError: this codec cannot read the bytes.
        """
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            return self.decode(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.decode(<const char*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def loads_many(self, encoded):
        """Return a list of the value of each of `encoded`, an iterable of bytes.

        The garbage collector is held back meanwhile, see redis_fastbatch._core.runtime.gc_pause.

        Raises:
            DecodeError: this codec cannot read some of the bytes.
        """
        cdef list values = []
        cdef Py_ssize_t made = 0
        with gc_pause.Pause() as pause:
            for data in encoded:
                if PyBytes_CheckExact(data):
                    values.append(self.decode(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)))
                else:
                    values.append(self.loads(data))
                made += 1
                if made == GC_INTERVAL:
                    pause.made(made)
                    made = 0
        return values


def restored(kind, made_by, arguments, attributes):
    """Return a copied or unpickled codec, with its own buffer and caches."""
    codec = kind.__new__(kind)
    made_by.__init__(codec, **arguments)
    if attributes:
        codec.__dict__.update(attributes)
    return codec


cdef class PythonCodec(ValueCodec):
    """A codec of two Python callables: `dumps(value) -> bytes` and `loads(bytes) -> value`."""

    cdef object to_bytes
    cdef object from_bytes

    def __init__(self, to_bytes, from_bytes):
        self.to_bytes = to_bytes
        self.from_bytes = from_bytes

    cdef tuple made_by(self):
        return PythonCodec, {"to_bytes": self.to_bytes, "from_bytes": self.from_bytes}

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_buffer view
        try:
            data = self.to_bytes(value)
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        except EncodeError:
            raise
        except Exception as error:
            raise EncodeError(f"dumps() failed for {type(value).__name__}: {format_error(error)}") from error
        try:
            out.append(<const char*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef object decode(self, const char* data, Py_ssize_t size):
        try:
            return self.from_bytes(PyBytes_FromStringAndSize(data, size))
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(format_error(error), place_of(error)) from error


cdef object place_of(object error):
    """Return the byte offset that a library's exception names, else 0."""
    if isinstance(error, UnicodeDecodeError):
        return error.start
    place = getattr(error, "pos", 0)
    text = getattr(error, "doc", None)
    if not isinstance(place, int):
        return 0
    # json.JSONDecodeError counts characters.
    return len(text[:place].encode("utf-8", "surrogatepass")) if isinstance(text, str) else place
