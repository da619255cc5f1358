# cython: language_level=3
from cpython.object cimport PyObject

from redis_fastbatch._core.resp.replies cimport ReplyReader

cdef enum:
    DEEPEST = 128


cdef struct Aggregate:
    PyObject* made          # a list or a dict, an owned reference
    PyObject* key           # the key of a dict whose value is still to come, owned; NULL if there is none
    Py_ssize_t left         # elements that are still to come, or keys with their values
    bint pairs


cdef class ObjectReader(ReplyReader):
    """Reads replies as Python objects."""

    cdef Aggregate open[DEEPEST]        # the aggregates that are being read, the outermost first
    cdef int depth
    cdef bytes encoding                 # None if strings become bytes
    cdef bytes encoding_errors
    cdef bint is_utf8
    cdef bint decoding                  # whether the strings of the present reply become str
    cdef readonly Py_ssize_t errors     # how many error replies were read, also within aggregates

    cdef void let_go(self) noexcept
    cdef object take(self, object explain)
    cdef object element(self, object explain)
    cdef object open_aggregate(self, char kind, Py_ssize_t start, Py_ssize_t stop)
    cdef object line(self, object explain, char kind, Py_ssize_t start, Py_ssize_t stop)
    cdef object number(self, Py_ssize_t start, Py_ssize_t stop)
    cdef object double(self, Py_ssize_t start, Py_ssize_t stop)
    cdef object text(self, Py_ssize_t start, Py_ssize_t size)
    cdef bint put(self, object value) except -1
    cdef object close(self)
