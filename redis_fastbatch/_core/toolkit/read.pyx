# cython: language_level=3
"""Reads redis-toolkit's JSON.

Wrappers in any other spelling than the toolkit's, malformed or deeply nested JSON, and values that may have a special
meaning raise Unusual. Then plain.py reads the whole value and decides.
"""

cimport cython
from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.json.reader cimport JsonReader, Place, starts
from redis_fastbatch._core.json.text cimport plain_end
from redis_fastbatch._core.toolkit.base64 cimport take_base64

from redis_fastbatch._core.json.unusual import Unusual


cdef class WrapperReader(JsonReader):
    """Reads JSON as the toolkit writes it. For other bytes it raises Unusual."""

    def __cinit__(self):
        self.allow_nan = True
        self.has_wrappers = True

    cdef object read_wrapper(self, const char* data, Py_ssize_t size, bint preserve_int):
        """Return the value of {"__type__": ..., "__data__": ...}."""
        cdef Place at
        at.p = data
        at.end = data + size
        at.depth = 0
        if not starts(&at, b'{"__type__": "', 14):
            raise Unusual
        value = self.read_data_locked(&at) if FREE_THREADED else self.read_data(&at)
        if at.end - at.p != 1 or at.p[0] != c'}':
            raise Unusual
        if type(value) is int and not preserve_int and (value == 0 or value == 1):
            return value == 1
        return value

    cdef object read_data_locked(self, Place* at):
        """Read while no other thread uses the caches."""
        with cython.critical_section(self):
            return self.read_data(at)

    cdef object read_data(self, Place* at):
        """Return the value after "__data__", if it has the type that "__type__" names."""
        if starts(at, b'dict", "__data__": ', 19):
            if at.p < at.end and at.p[0] == c'{':
                return self.read(at)
        elif starts(at, b'str", "__data__": "', 19):
            return self.read_text(at)
        elif starts(at, b'list", "__data__": ', 19):
            if at.p < at.end and at.p[0] == c'[':
                return self.read(at)
        elif starts(at, b'tuple", "__data__": ', 20):
            if at.p < at.end and at.p[0] == c'[':
                return tuple(self.read(at))
        elif starts(at, b'int", "__data__": ', 18):
            value = self.read(at)
            if type(value) is int:
                return value
        elif starts(at, b'float", "__data__": ', 20):
            value = self.read(at)
            if type(value) is float:
                return value
        elif starts(at, b'bool", "__data__": ', 19):
            value = self.read(at)
            if type(value) is bool:
                return value
        elif starts(at, b'bytes", "__data__": "', 21):
            return self.read_bytes(at)
        raise Unusual

    cdef object read_wrapped(self, Place* at):
        """Read bytes inside a container."""
        cdef bint mutable = False
        if not starts(at, b'"__type__": "bytes", "__data__": "', 34):
            if not starts(at, b'"__type__": "bytearray", "__data__": "', 38):
                raise Unusual
            mutable = True
        value = self.read_bytes(at)
        if not starts(at, b"}", 1):
            raise Unusual
        return bytearray(value) if mutable else value

    cdef object read_bytes(self, Place* at):
        """Read base64 after its opening quote."""
        cdef const char* text = at.p
        cdef const char* stop = plain_end(text, at.end)
        if stop >= at.end or stop[0] != c'"':
            raise Unusual
        value = take_base64(text, stop - text)
        if value is None:
            raise Unusual
        at.p = stop + 1
        return value
