# cython: language_level=3
from redis_fastbatch._core.buffer cimport ReceiveBuffer
from redis_fastbatch._core.codec cimport ValueCodec


cdef class ReplyReader(ReceiveBuffer):
    """Reads the replies of a batch from received bytes."""

    cdef readonly list pushes
    cdef readonly Py_ssize_t elements     # of the array being read that are still to come
    cdef Py_ssize_t max_value_size
    cdef object parser

    cdef Py_ssize_t line_end(self, Py_ssize_t start) noexcept
    cdef Py_ssize_t integer(self, Py_ssize_t start, Py_ssize_t stop) except? -2
    cdef object parse(self, Py_ssize_t stop)
    cdef bint is_quiet(self, Py_ssize_t stop) noexcept
    cdef bint skip_pushes(self) except -1
    cdef object decode(self, ValueCodec codec, Py_ssize_t start, Py_ssize_t size, object key, list failures)
