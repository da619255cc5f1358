# cython: language_level=3
"""Writes redis-toolkit's JSON, in the spelling of `json.dumps(wrapper, ensure_ascii=False)`.

A value becomes {"__type__": <the type's name>, "__data__": <the value>}. Bytes are base64; bytes inside containers
have wrappers of their own. The order of the type checks decides for classes with several bases: outside it is the
toolkit's order, inside containers json's.
"""

from cpython.bytearray cimport PyByteArray_Check
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_Check
from cpython.dict cimport PyDict_Check, PyDict_CheckExact
from cpython.float cimport PyFloat_Check, PyFloat_CheckExact
from cpython.list cimport PyList_Check, PyList_CheckExact
from cpython.long cimport PyLong_Check, PyLong_CheckExact
from cpython.tuple cimport PyTuple_Check
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact

from redis_fastbatch._core.json.writer cimport JsonWriter, put
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.toolkit.base64 cimport put_base64

from redis_fastbatch._core.json.unusual import Unusual


cdef inline bint is_json(object value):
    return (
        PyUnicode_Check(value)
        or PyLong_Check(value)
        or PyFloat_Check(value)
        or PyDict_Check(value)
        or PyList_Check(value)
        or PyTuple_Check(value)
    )


cdef int put_bytes(object value, OutputBuffer out, bytes name) except -1:
    cdef Py_buffer view
    put(out, b'{"__type__": "')
    put(out, name)
    put(out, b'", "__data__": "')
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        put_base64(out, <const unsigned char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return put(out, b'"}')


cdef class WrapperWriter(JsonWriter):
    """Writes JSON as the toolkit does."""

    def __cinit__(self):
        self.spaced = True
        self.allow_nan = True

    cdef int write_wrapper(self, object value, OutputBuffer out) except -1:
        """Append the bytes of a whole value.

        Raises:
            EncodeError: the value cannot be written.
            Unusual: plain.py has to decide.
        """
        if PyDict_CheckExact(value):
            put(out, b'{"__type__": "dict", "__data__": ')
        elif PyUnicode_CheckExact(value):
            put(out, b'{"__type__": "str", "__data__": ')
        elif value is None:
            return put(out, b"__NONE__")
        elif value is True or value is False:
            put(out, b'{"__type__": "bool", "__data__": ')
        elif PyBytes_Check(value) or PyByteArray_Check(value):
            # Only inside a container does a bytearray stay one.
            return put_bytes(value, out, b"bytes")
        elif PyLong_CheckExact(value):
            put(out, b'{"__type__": "int", "__data__": ')
        elif PyFloat_CheckExact(value):
            put(out, b'{"__type__": "float", "__data__": ')
        elif PyList_CheckExact(value):
            put(out, b'{"__type__": "list", "__data__": ')
        elif is_json(value):
            put(out, b'{"__type__": ')
            self.write(type(value).__name__, out, 0)
            put(out, b', "__data__": ')
        else:
            raise Unusual
        self.write(value, out, 0)
        return put(out, b"}")

    cdef int write_unknown(self, object value, OutputBuffer out, int depth) except -1:
        if PyBytes_Check(value):
            return put_bytes(value, out, b"bytes")
        if PyByteArray_Check(value):
            return put_bytes(value, out, b"bytearray")
        return self.refuse(value, f"the toolkit's JSON has no type for {type(value).__name__}")
