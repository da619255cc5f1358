# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.builder cimport ColumnBuilder
from redis_fastbatch._core.arrow.rows_builder cimport RowsBuilder
from redis_fastbatch._core.resp.replies cimport ReplyReader


cdef class HashColumns:
    """Reads the replies to HGETALL or HMGET into columns."""

    cdef readonly RowsBuilder builder
    cdef bint wanted                # the columns were given, and their fields are asked for by HMGET
    cdef Py_ssize_t max_value_size

    cdef object next_row(self, ReplyReader reader, key, list failures)
    cdef object append_reply(self, ReplyReader reader)
    cdef object append_parsed(self, object reply)
    cdef ColumnBuilder column(self, const char* name, Py_ssize_t size, Py_ssize_t i)
    cdef int append_value(self, ColumnBuilder column, const char* data, Py_ssize_t size) except -1
    cdef int append_text_value(self, ColumnBuilder column, const char* data, Py_ssize_t size) except -1
    cdef object end_row(self)
