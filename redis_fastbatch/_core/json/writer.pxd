# cython: language_level=3
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcpy

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve


cdef class JsonWriter:
    """Writes JSON in the spelling of json.dumps()."""

    cdef bint spaced      # write a space after each comma and colon
    cdef bint allow_nan   # write NaN and infinities, by json's words for them

    cdef int write(self, object value, OutputBuffer out, int depth) except -1
    cdef int put_locked(self, object value, OutputBuffer out, int depth) except -1
    cdef int write_unknown(self, object value, OutputBuffer out, int depth) except -1
    cdef int refuse(self, object value, str reason) except -1
    cdef int refuse_float(self, object number) except -1
    cdef int put_other_key(self, object key, OutputBuffer out) except -1
    cdef int put_dict(self, dict mapping, OutputBuffer out, int depth) except -1
    cdef int put_pairs(self, object mapping, OutputBuffer out, int depth) except -1
    cdef int put_list(self, list items, OutputBuffer out, int depth) except -1
    cdef int put_tuple(self, tuple items, OutputBuffer out, int depth) except -1


cdef inline int put(OutputBuffer out, bytes text) except -1:
    reserve(out, PyBytes_GET_SIZE(text))
    memcpy(out.data + out.end, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    out.end += PyBytes_GET_SIZE(text)
    return 0
