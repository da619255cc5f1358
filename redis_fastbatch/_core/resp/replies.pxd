# cython: language_level=3
from cpython.object cimport PyObject

from redis_fastbatch._core.runtime.buffer cimport ReceiveBuffer
from redis_fastbatch._core.codec cimport ValueCodec

cdef enum:
    MOST_HELD = 64


cdef class ValueRun:
    """The values of some keys, and how far they are read."""

    cdef list keys
    cdef list pairs
    cdef dict mapping
    cdef list refused
    cdef object default
    cdef Py_ssize_t count
    cdef Py_ssize_t done
    cdef Py_ssize_t undecodable   # the end of the value that is being decoded
    cdef PyObject* held[MOST_HELD]   # references to the last values that were read
    cdef Py_ssize_t holding

    cdef int put(self, object value) except -1
    cdef int hand_over(self) except -1
    cdef void let_go(self) noexcept


cdef class ReplyReader(ReceiveBuffer):
    """Reads the replies of a batch from received bytes."""

    cdef readonly list pushes
    cdef readonly Py_ssize_t elements     # of the array being read that are still to come
    cdef Py_ssize_t max_value_size
    cdef object parser
    cdef object make_parser
    cdef dict parser_options              # further arguments of make_parser
    cdef object protocol_error
    cdef Py_ssize_t scanned      # how many bytes after `position` belong to the reply that has not arrived whole
    cdef Py_ssize_t pending      # its elements that are still to come; 0 if no reply has begun
    cdef Py_ssize_t bulk_left    # bytes of the bulk string being dropped that are still to come; -1 outside of one

    cdef Py_ssize_t broken(self, str reason) except -2
    cdef Py_ssize_t line_end(self, Py_ssize_t start) noexcept
    cdef Py_ssize_t integer(self, Py_ssize_t start, Py_ssize_t stop) except? -2
    cdef object parse(self, Py_ssize_t stop)
    cdef object verbatim(self, Py_ssize_t stop)
    cdef bint is_quiet(self, Py_ssize_t stop, bint queued) noexcept
    cdef bint skip_pushes(self) except -1
    cdef int run_values(self, ValueRun run, ValueCodec codec) except -1
    cdef bint other_value(self, ValueRun run) except -1
    cdef Py_ssize_t bulk_start(self, Py_ssize_t* size) except -2
    cdef Py_ssize_t after_integer(self) noexcept
    cdef Py_ssize_t next_number(self, Py_ssize_t most) except -2
    cdef Py_ssize_t head_end(self, Py_ssize_t at, Py_ssize_t* count) except -2
    cdef Py_ssize_t whole_end(self) except -2
    cdef bint drop(self) except -1
    cdef int rewind(self, Py_ssize_t position, Py_ssize_t pushes) except -1


cdef class ReplyFormat:
    """How replies become Python objects."""

    cdef public object explain
    cdef str encoding       # None for bytes
    cdef str errors
    cdef bint is_utf8

    cdef object read(self, ReplyReader reader, Py_ssize_t* at, int depth)
    cdef dict read_map(self, ReplyReader reader, Py_ssize_t* at, Py_ssize_t count, int depth)
    cdef object read_line(self, ReplyReader reader, Py_ssize_t start, Py_ssize_t stop, char kind)
    cdef object text(self, const char* data, Py_ssize_t size)
