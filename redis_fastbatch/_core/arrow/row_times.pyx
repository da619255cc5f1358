# cython: language_level=3
"""The expiries of a table's rows, where they are not the same for all."""

from cpython.bytes cimport PyBytes_FromStringAndSize

from redis_fastbatch._core.arrow.cells cimport is_missing, read_int
from redis_fastbatch._core.arrow.columns cimport INT8, UINT64
from redis_fastbatch._core.arrow.values cimport make_room, put_plain
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer

from redis_fastbatch.errors import EncodeError

cdef enum:
    ROOM = 32


cdef class RowTimes:
    def __init__(self, ItemExpiry expiry):
        self.expiry = expiry

    cdef int bind(self, Column* column) except -1:
        """Take the times from a column, which lives as long as this object."""
        if not INT8 <= column.kind <= UINT64:
            raise EncodeError(
                f"column {self.expiry.column!r}: {self.expiry.name} must be a column of integers; cast the column"
            )
        self.column = column
        return 0

    cdef int64_t at(self, int64_t row) except -1 nogil:
        """Return the time of a row; `row` includes the offset of its batch, not that of the column."""
        cdef int64_t number
        if self.column == NULL:
            return self.expiry.spread(self.expiry.fixed)
        row += self.column.offset
        number = 0 if is_missing(self.column, row) else read_int(self.column.data, self.column.kind, row)
        if number <= 0:
            with gil:
                self.refuse(row)
        return self.expiry.spread(number)

    cdef int refuse(self, int64_t at) except -1:
        cdef OutputBuffer out = OutputBuffer()
        cdef char* p = make_room(out, out.data, ROOM)
        if is_missing(self.column, at):
            found = "null"
        else:
            p = put_plain(out, p, self.column, at, ROOM)
            found = PyBytes_FromStringAndSize(out.data, p - out.data).decode()
        raise EncodeError(
            f"column {self.expiry.column!r}: {self.expiry.name} must be positive and fit into 64 bits, found {found}"
        )
