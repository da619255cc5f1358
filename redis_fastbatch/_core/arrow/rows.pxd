# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.bulk cimport Literal
from redis_fastbatch._core.arrow.chunk cimport TableChunk
from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.arrow.row_times cimport RowTimes
from redis_fastbatch._core.arrow.stream cimport ArrowStream
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.resp.encoder cimport Command


cdef struct KeyPart:
    Literal literal
    Column* column          # NULL if this part is a literal
    bint is_reencoded       # keys are not in UTF-8, but the column's text is


cdef bint is_null_row(ArrowStream stream, int64_t at) noexcept nogil
cdef int check_row(ArrowStream stream, int64_t at) except -1 nogil


cdef class TableWriter:
    """Encodes the rows of a table in chunks, without the GIL."""

    cdef ArrowStream stream
    cdef readonly Command command
    cdef readonly list failures
    cdef readonly bint exhausted
    cdef readonly bint source_pending
    cdef readonly bint in_memory
    cdef readonly object source_error
    cdef readonly Py_ssize_t batches    # of the table, taken so far
    cdef public Py_ssize_t max_items
    cdef public Py_ssize_t max_bytes
    cdef object row_codec           # decodes a row's value, for reports of failed rows
    cdef Column* columns            # of the value, then those that only the key needs
    cdef int64_t* fields            # the index of each in the batch
    cdef Py_ssize_t n_columns
    cdef Py_ssize_t n_values
    cdef KeyPart* key_parts
    cdef Py_ssize_t n_key_parts
    cdef str encoding               # of keys; None for UTF-8, because the columns' texts have it
    cdef str errors
    cdef tuple owned_bytes          # keeps the literals alive
    cdef Literal tag
    cdef Literal prefix             # of the command, if each row has its own
    cdef Literal suffix
    cdef RowTimes times             # of expiry, if it is not the same for all rows; else None
    cdef Py_ssize_t row_room
    cdef Py_ssize_t key_digits      # of the last key's length and value's length, as a guess for the next
    cdef Py_ssize_t value_digits
    cdef Py_ssize_t row_start       # where the current row begins in the chunk
    cdef int64_t row                # in the batch
    cdef int64_t batch_rows
    cdef int64_t first_row          # of the batch, counted over all batches

    cdef int add_column(self, dict places, str name) except -1
    cdef int read_columns(self, list names) except -1
    cdef int read_key(self, list parts, list names) except -1
    cdef int next_batch(self) except -1
    cdef bint run(self, TableChunk chunk) except -1 nogil
    cdef int put_row(self, TableChunk chunk) except -1 nogil
    cdef char* put_key(self, OutputBuffer out, char* p) except NULL nogil
    cdef char* reencode(self, OutputBuffer out, char* start, char* p) except NULL
    cdef char* put_fields(self, OutputBuffer out, char* p) except NULL nogil
    cdef object row_value(self)
    cdef int64_t at(self) noexcept nogil
    cdef object whole_row(self)
    cdef object decoded(self, OutputBuffer out, char* p)
    cdef dict row_by_fields(self)
    cdef dict one_field(self, Py_ssize_t i)
    cdef object raw_field(self, Py_ssize_t i)
