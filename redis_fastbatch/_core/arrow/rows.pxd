# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.arrow.stream cimport ArrowStream
from redis_fastbatch._core.arrow.values cimport make_room
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.encoder cimport Chunk, Command
from redis_fastbatch._core.runtime.utf8 cimport copy_short


cdef struct Literal:
    const char* data        # of a bytes object that somebody keeps alive
    Py_ssize_t size


cdef struct KeyPart:
    Literal literal
    Column* column          # or NULL
    bint recoded            # its text is not in the encoding of keys


cdef bint is_null_row(ArrowStream stream, int64_t at) noexcept nogil
cdef int check_row(ArrowStream stream, int64_t at) except -1 nogil
cdef Literal literal(bytes given) noexcept
cdef char* close_bulk(OutputBuffer out, char* p, Py_ssize_t header, Py_ssize_t* width) except NULL nogil
cdef const char* after_bulk(const char* p, const char** data, Py_ssize_t* size) noexcept


cdef inline char* put_literal(OutputBuffer out, char* p, Literal* given, Py_ssize_t room) except NULL nogil:
    """Writes bytes given beforehand, and sees to `room` bytes behind them."""
    p = make_room(out, p, given.size + room)
    copy_short(p, given.data, given.size)
    return p + given.size


cdef class TableChunk(Chunk):
    """Commands that carry rows. What Python wants to know of a row is made when it asks."""

    cdef int64_t* rows      # the number of each row, counted over all batches
    cdef Py_ssize_t rows_capacity
    cdef object row_codec

    cdef int add_row(self, int64_t row) except -1 nogil
    cdef int more_rows(self) except -1 nogil


cdef class TableWriter:
    """Encodes the rows of a table, a chunk at a time, with the GIL released."""

    cdef ArrowStream stream
    cdef readonly Command command
    cdef readonly list failures
    cdef readonly bint exhausted
    cdef readonly bint dry
    cdef readonly object source_error
    cdef readonly Py_ssize_t batches    # of the table that were taken
    cdef public Py_ssize_t max_items
    cdef public Py_ssize_t max_bytes
    cdef object row_codec           # reads a row's value again, for whoever asks about a failed one
    cdef Column* columns            # those of the value, then those that only the key needs
    cdef int64_t* fields            # the place of each in the batch
    cdef Py_ssize_t n_columns
    cdef Py_ssize_t n_values
    cdef KeyPart* key_parts
    cdef Py_ssize_t n_key_parts
    cdef str encoding               # of keys; None for UTF-8, in which the columns' texts are
    cdef str errors
    cdef tuple kept                 # keeps the literals alive
    cdef Literal tag
    cdef Literal prefix             # of the command, where a row is one
    cdef Literal suffix
    cdef Py_ssize_t row_room
    cdef Py_ssize_t key_digits      # of the last key's and value's length: a guess for the next one's
    cdef Py_ssize_t value_digits
    cdef Py_ssize_t mark            # where the row being encoded begins
    cdef int64_t row                # of the batch
    cdef int64_t batch_rows
    cdef int64_t first_row          # of the batch, counted over all batches

    cdef int add_column(self, dict places, str name) except -1
    cdef int read_columns(self, list names) except -1
    cdef int read_key(self, list parts, list names) except -1
    cdef int next_batch(self) except -1
    cdef bint run(self, TableChunk chunk) except -1 nogil
    cdef int put_row(self, TableChunk chunk) except -1 nogil
    cdef char* put_key(self, OutputBuffer out, char* p) except NULL nogil
    cdef char* recode(self, OutputBuffer out, char* start, char* p) except NULL
    cdef char* put_fields(self, OutputBuffer out, char* p) except NULL nogil
    cdef object row_value(self)
    cdef int64_t at(self) noexcept
    cdef object whole_row(self)
    cdef object decoded(self, OutputBuffer out, char* p)
    cdef dict row_by_fields(self)
    cdef dict one_field(self, Py_ssize_t i)
    cdef object unwritten(self, Py_ssize_t i)
