# cython: language_level=3
"""Encodes the rows of a table as RESP, with the interface of BatchWriter, so that the same flights carry them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.abi cimport ArrowArray
from redis_fastbatch._core.arrow.bulk cimport close_bulk, literal, put_literal
from redis_fastbatch._core.arrow.cells cimport is_missing, is_plain, is_text, kind_name, raw_value
from redis_fastbatch._core.arrow.chunk cimport TableChunk
from redis_fastbatch._core.arrow.columns cimport Column, bind, free_column, is_null, put_name, read_schema
from redis_fastbatch._core.arrow.row_times cimport RowTimes
from redis_fastbatch._core.arrow.stream cimport ArrowStream
from redis_fastbatch._core.arrow.values cimport make_room, put_plain, put_value
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.msgpack.format cimport put_map_header
from redis_fastbatch._core.resp.encoder cimport Command, key_bytes
from redis_fastbatch._core.runtime.utf8 cimport copy_short, is_ascii

import codecs

from redis_fastbatch.errors import EncodeError, FastBatchError

cdef enum:
    HEADER_ROOM = 32        # `$<length>` CRLF, and the CRLF after the string
    MAX_FAILURES = 1000     # failed rows at which fill() returns to report them

cdef bytes ASCII_BYTES = bytes(range(128))
cdef str ASCII = ASCII_BYTES.decode("ascii")


cdef int refuse_null_key(Column* c) except -1 nogil:
    with gil:
        raise EncodeError(f"the key column {c.path.decode('utf-8', 'replace')!r} is null")


cdef int refuse_empty_key(Column* c) except -1 nogil:
    with gil:
        raise EncodeError(
            f"the key column {c.path.decode('utf-8', 'replace')!r} is empty: rows without an id would share a key"
        )


cdef int refuse_null_row() except -1 nogil:
    with gil:
        raise EncodeError("the whole row is null")


cdef class TableWriter:
    """Encodes rows into chunks.

    Args:
        stream: the table.
        command: the command that carries the rows.
        columns: the columns of a row's value, in this order; None for all.
        key: the parts of a row's key: bytes are literals, and a str is the name of a column.
        tag: bytes before each value.
        row_codec: decodes a value, for reports of failed rows.
        max_items, max_bytes: the items and bytes at which a chunk is full.
        encoding, errors: how text in keys is encoded, as in the redis-py client.
        also: further columns that a subclass reads, which are not in `columns`.

    Attributes:
        failures: a (row number, row as a dict or None, exception) for each row that could not be encoded.
            The caller empties it.
        exhausted: there are no more rows.
        source_pending: always False, because a table's stream blocks until it has rows.
        in_memory: always False, because it may block.
        source_error: the exception that ended the table's stream; else None.
        batches: the number of the table's batches that were taken.

    Raises:
        EncodeError: a column does not exist, exists twice, or has a type that is not supported.
        ValueError: the encoding does not keep ASCII as it is.
    """

    def __cinit__(self):
        self.key_digits = 2
        self.value_digits = 3

    def __init__(
        self,
        ArrowStream stream,
        Command command,
        *,
        columns,
        list key,
        bytes tag,
        row_codec,
        Py_ssize_t max_items,
        Py_ssize_t max_bytes,
        str encoding="utf-8",
        str errors="strict",
        also=(),
    ):
        self.stream = stream
        self.owned_bytes = (tag, *key)
        self.tag = literal(tag)
        self.row_codec = row_codec
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.failures = []
        self.use(command)
        if codecs.lookup(encoding).name != "utf-8":
            if ASCII.encode(encoding, errors) != ASCII_BYTES:
                raise ValueError(f"the encoding of keys must keep ASCII as it is, got {encoding!r}")
            self.encoding = encoding
            self.errors = errors
        names = self.stream.field_names() if columns is None else list(columns)
        self.n_values = len(names)
        for part in key:
            if isinstance(part, str) and part not in names:
                names.append(part)
        names += also
        times = None if command.expiry is None else command.expiry.column
        if times is not None and times not in names:
            names.append(times)
        self.read_columns(names)
        self.read_key(key, names)
        if command.expiry is not None:
            self.times = RowTimes(command.expiry)
            if times is not None:
                self.times.bind(&self.columns[<Py_ssize_t>names.index(times)])

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.n_columns):
            free_column(&self.columns[i])
        PyMem_RawFree(self.columns)
        PyMem_RawFree(self.fields)
        PyMem_RawFree(self.key_parts)

    cdef int read_columns(self, list names) except -1:
        cdef dict places = {}
        cdef Py_ssize_t i
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            count = names.count(twice)
            raise EncodeError(f"column {twice!r}: each name must be there once, found it {count} times")
        for i, name in enumerate(self.stream.column_names()):
            places.setdefault(name, []).append(i)
        self.columns = <Column*>PyMem_RawCalloc(len(names) + 1, sizeof(Column))
        self.fields = <int64_t*>PyMem_RawCalloc(len(names) + 1, sizeof(int64_t))
        if self.columns == NULL or self.fields == NULL:
            raise MemoryError()
        self.row_room = HEADER_ROOM
        for name in names:
            self.add_column(places, name)
        return 0

    cdef int add_column(self, dict places, str name) except -1:
        cdef Column* column = &self.columns[self.n_columns]
        cdef list found = places.get(name, [])
        if len(found) != 1:
            names = ", ".join(map(repr, places)) or "none"
            reason = f"there is no such column; there are {names}"
            if found:
                reason = f"each name must be there once, found it {len(found)} times"
            raise EncodeError(f"column {name!r}: {reason}")
        self.fields[self.n_columns] = found[0]
        # Count the column first, so that it is freed even if read_schema() fails.
        self.n_columns += 1
        read_schema(column, self.stream.schema.children[<int64_t>found[0]], name, 0)
        self.row_room += column.name_size + column.room
        return 0

    cdef int read_key(self, list parts, list names) except -1:
        cdef KeyPart* part
        self.key_parts = <KeyPart*>PyMem_RawCalloc(len(parts) + 1, sizeof(KeyPart))
        if self.key_parts == NULL:
            raise MemoryError()
        for given in parts:
            part = &self.key_parts[self.n_key_parts]
            if isinstance(given, str):
                part.column = &self.columns[<Py_ssize_t>names.index(given)]
                if not is_plain(part.column):
                    raise EncodeError(
                        f"column {given!r}: the columns of a key must be of integers, strings, binaries, decimals, "
                        f"dates or times, found {kind_name(part.column)}; cast the column to one of these, or load "
                        f"the file with --type {given}=string"
                    )
                part.is_reencoded = self.encoding is not None and is_text(part.column)
            else:
                part.literal = literal(given)
            self.n_key_parts += 1
        return 0

    @property
    def rows_left(self):
        """The number of rows in the current batch that are not encoded yet."""
        return self.batch_rows - self.row

    def blank(self):
        """Return an empty chunk for fill()."""
        return TableChunk(self.command, self.row_codec)

    def use(self, Command command):
        """Use another command for the following chunks."""
        self.command = command
        self.prefix = literal(b"" if command.many else command.prefix)
        self.suffix = literal(b"" if command.many else command.suffix)

    def fill(self, TableChunk chunk):
        """Write rows into `chunk` until it is full or there are no more, and seal it."""
        cdef bint full = False
        chunk.restart(self.command)
        while not full and len(self.failures) < MAX_FAILURES:
            try:
                with nogil:
                    full = self.run(chunk)
            except Exception as error:
                chunk.take_back(self.row_start)
                self.failures.append(self.failure(error))
                self.row += 1
                continue
            if not full:
                try:
                    full = self.next_batch() == 0
                except Exception as error:
                    self.source_error = error
                    full = True
                self.exhausted = full
        chunk.seal()

    def fill_some(self, TableChunk chunk, Py_ssize_t most):
        """Call fill(). A chunk needs no slices: it takes a fraction of a millisecond, without the GIL."""
        self.fill(chunk)

    def failure(self, error):
        """Return an entry of `failures` for the current row."""
        row = self.first_row + self.row
        if not isinstance(error, MemoryError):
            cause, error = error, EncodeError(f"row {row}: {error}")
            error.__cause__ = None if isinstance(cause, EncodeError) else cause
        return row, self.row_value(), error

    cdef int next_batch(self) except -1:
        """Take the next batch; return 0 if there is none."""
        cdef ArrowArray* batch = &self.stream.batch
        cdef int64_t last
        cdef Py_ssize_t i
        self.first_row += self.batch_rows
        self.row = 0
        self.batch_rows = 0
        if not self.stream.next_batch():
            return 0
        if (
            batch.n_children != self.stream.schema.n_children
            or batch.length < 0
            or not 0 <= batch.offset <= (<int64_t>1 << 62) - batch.length
        ):
            raise ValueError("the batches of the table's stream must match its schema, found one that does not")
        last = batch.offset + batch.length
        for i in range(self.n_columns):
            bind(&self.columns[i], batch.children[self.fields[i]], last)
        self.batch_rows = batch.length
        self.batches += 1
        return 1

    cdef bint run(self, TableChunk chunk) except -1 nogil:
        """Encode rows; return True if the chunk is full, False at the end of the batch."""
        cdef Py_ssize_t limit = chunk.start + self.max_bytes
        while chunk.items < self.max_items and chunk.end < limit:
            if self.row >= self.batch_rows:
                return False
            self.row_start = chunk.end
            self.put_row(chunk)
            if self.times is not None:
                chunk.put_time(self.times.at(self.at()))
            chunk.add_row(self.first_row + self.row)
            self.row += 1
        return True

    cdef int put_row(self, TableChunk chunk) except -1 nogil:
        cdef char* p = chunk.data + chunk.end
        cdef Py_ssize_t header
        # Room for the value is made after the key, because a key can have any length.
        p = put_literal(chunk, p, &self.prefix, 3 * HEADER_ROOM)
        header = p - chunk.data
        p = self.put_key(chunk, p + self.key_digits + 3)
        p = close_bulk(chunk, p, header, &self.key_digits)
        p = make_room(chunk, p, HEADER_ROOM)
        header = p - chunk.data
        p = put_literal(chunk, p + self.value_digits + 3, &self.tag, self.row_room + HEADER_ROOM)
        p = self.put_fields(chunk, p)
        p = make_room(chunk, p, HEADER_ROOM)
        p = close_bulk(chunk, p, header, &self.value_digits)
        p = put_literal(chunk, p, &self.suffix, 0)
        chunk.end = p - chunk.data
        return 0

    cdef char* put_key(self, OutputBuffer out, char* p) except NULL nogil:
        cdef int64_t at = self.stream.batch.offset + self.row
        cdef KeyPart* part
        cdef Py_ssize_t start, i
        for i in range(self.n_key_parts):
            part = &self.key_parts[i]
            if part.column == NULL:
                p = put_literal(out, p, &part.literal, HEADER_ROOM)
            else:
                if is_missing(part.column, at + part.column.offset):
                    refuse_null_key(part.column)
                start = p - out.data
                p = put_plain(out, p, part.column, at + part.column.offset, HEADER_ROOM)
                if p - out.data == start:
                    refuse_empty_key(part.column)
                if part.is_reencoded and not is_ascii(out.data + start, p - out.data - start):
                    with gil:
                        p = self.reencode(out, out.data + start, p)
        return p

    cdef char* reencode(self, OutputBuffer out, char* start, char* p) except NULL:
        """Change the UTF-8 from `start` to `p` into the encoding of keys; return the position after it."""
        cdef bytes encoded = key_bytes(start[:p - start].decode("utf-8"), self.encoding, self.errors)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(encoded)
        p = make_room(out, start, size + HEADER_ROOM)
        copy_short(p, PyBytes_AS_STRING(encoded), size)
        return p + size

    cdef char* put_fields(self, OutputBuffer out, char* p) except NULL nogil:
        """Write the row as a map of its fields. The caller has made room for `row_room` bytes."""
        cdef int64_t at = self.stream.batch.offset + self.row
        cdef Column* column = self.columns
        cdef Py_ssize_t room = self.row_room
        cdef Py_ssize_t i
        check_row(self.stream, at)
        p = put_map_header(p, <unsigned int>self.n_values)
        for i in range(self.n_values):
            p = put_value(out, put_name(p, column), column, at + column.offset, room)
            column += 1
        return p

    cdef object row_value(self):
        """Return the current row as a dict, for a report of its failure; None if the whole row is null.

        A field that cannot be written is as raw_field() returns it.
        """
        if is_null_row(self.stream, self.at()):
            return None
        try:
            return self.whole_row()
        except (FastBatchError, MemoryError):
            return self.row_by_fields()

    cdef int64_t at(self) noexcept nogil:
        """Return the index of the current row in its batch, including the batch's offset."""
        return self.stream.batch.offset + self.row

    cdef object whole_row(self):
        cdef OutputBuffer out = OutputBuffer()
        cdef char* p
        out.grow(self.row_room)
        p = self.put_fields(out, out.data)
        return self.decoded(out, p)

    cdef object decoded(self, OutputBuffer out, char* p):
        """Return the value that the codec reads from the MessagePack in `out`, which ends at `p`."""
        return self.row_codec(self.owned_bytes[0] + PyBytes_FromStringAndSize(out.data, p - out.data))

    cdef dict row_by_fields(self):
        cdef dict row = {}
        cdef Py_ssize_t i
        for i in range(self.n_values):
            try:
                row.update(self.one_field(i))
            except (FastBatchError, MemoryError):
                row[(<bytes>self.columns[i].path).decode("utf-8", "replace")] = self.raw_field(i)
        return row

    cdef dict one_field(self, Py_ssize_t i):
        """Return a field of the current row as a dict of one item."""
        cdef OutputBuffer out = OutputBuffer()
        cdef Column* column = &self.columns[i]
        cdef char* p
        out.grow(self.row_room)
        p = put_name(put_map_header(out.data, 1), column)
        return self.decoded(out, put_value(out, p, column, self.at() + column.offset, self.row_room))

    cdef object raw_field(self, Py_ssize_t i):
        """Return raw_value() of a field of the current row that cannot be written; None if it has none."""
        cdef Column* column = &self.columns[i]
        try:
            return raw_value(column, self.at() + column.offset)
        except EncodeError:
            # An index points outside its dictionary, or an offset outside its text.
            return None


cdef bint is_null_row(ArrowStream stream, int64_t at) noexcept nogil:
    """Return whether the whole row is null, regardless of its columns."""
    cdef Column row
    if stream.batch.n_buffers == 0 or stream.batch.null_count == 0:
        return False
    row.validity = <const unsigned char*>stream.batch.buffers[0]
    return is_null(&row, at)


cdef int check_row(ArrowStream stream, int64_t at) except -1 nogil:
    if is_null_row(stream, at):
        refuse_null_row()
    return 0
