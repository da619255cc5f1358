# cython: language_level=3
"""Writes the rows of a table as Redis hashes: an HSET for each row, and an EXPIRE for each written hash."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.bulk cimport Literal, after_bulk, close_bulk, literal, put_literal
from redis_fastbatch._core.arrow.cells cimport is_flat, is_missing
from redis_fastbatch._core.arrow.chunk cimport TableChunk
from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.arrow.rows cimport TableWriter, check_row, is_null_row
from redis_fastbatch._core.arrow.stream cimport ArrowStream
from redis_fastbatch._core.arrow.values cimport make_room, put_plain
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.runtime.decimals cimport put_decimal_int
from redis_fastbatch._core.resp.encoder cimport Chunk, Command

from redis_fastbatch.errors import EncodeError, FastBatchError

cdef enum:
    HEADER_ROOM = 32


cdef int refuse_empty() except -1 nogil:
    with gil:
        raise EncodeError("a hash must have at least one field, but every field of the row is null")


cdef class HashChunk(TableChunk):
    """A chunk with an HSET for each row."""

    def __init__(self, Command command):
        TableChunk.__init__(self, command, None)

    def row_value(self, Py_ssize_t wanted):
        """Return the fields of a row as bytes."""
        cdef const char* p = self.data + self.start
        cdef Py_ssize_t i
        if not 0 <= wanted < self.items:
            raise IndexError(wanted)
        for i in range(wanted):
            p = read_command(p, None)
        arguments = []
        read_command(p, arguments)
        return dict(zip(arguments[2::2], arguments[3::2]))

    cdef Chunk blank(self, Command command):
        return HashChunk(command)


cdef class ExpireChunk(Chunk):
    """A chunk that sets the expiry of the hashes of another chunk, except those that the server refused.

    Its items are all items of that chunk.

    Args:
        command: EXPIRE, PEXPIRE, EXPIREAT or PEXPIREAT.
        hashes: the chunk of HSETs.
        refused: the positions of the hashes that the server refused.

    Attributes:
        hashes: the chunk of HSETs.
        written: the positions of the other hashes; this chunk has a command for each.
    """

    cdef readonly HashChunk hashes
    cdef readonly list written

    def __init__(self, Command command, HashChunk hashes, refused):
        cdef const char* p = hashes.data + hashes.start
        cdef const char* key
        cdef const char* data = NULL
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t i, j
        Chunk.__init__(self, command)
        self.hashes = hashes
        self.written = [i for i in range(hashes.items) if i not in refused]
        for i in range(hashes.items):
            key = after_bulk(after_count(p, &count), &data, &size)
            p = after_bulk(key, &data, &size)
            if i not in refused:
                self.append(PyBytes_AS_STRING(command.prefix), PyBytes_GET_SIZE(command.prefix))
                self.append(key, p - key)
                self.append(PyBytes_AS_STRING(command.suffix), PyBytes_GET_SIZE(command.suffix))
            for j in range(count - 2):
                p = after_bulk(p, &data, &size)
        self.seal()

    @property
    def count(self):
        """The number of rows whose outcome its replies decide."""
        return self.hashes.items

    @property
    def keys(self):
        """The rows' numbers."""
        return self.hashes.keys

    @property
    def values(self):
        """The rows' fields."""
        return self.hashes.values

    @property
    def replies(self):
        """The number of replies that the server sends."""
        return len(self.written)


cdef const char* after_count(const char* p, Py_ssize_t* count) noexcept:
    """Return the position after the header of a command that this module wrote; set the count of its arguments."""
    count[0] = 0
    p += 1
    while p[0] != c'\r':
        count[0] = count[0] * 10 + (p[0] - c'0')
        p += 1
    return p + 2


cdef const char* read_command(const char* p, list arguments):
    """Return the position after a command that this module wrote; append its arguments unless the list is None."""
    cdef const char* data = NULL
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    p = after_count(p, &count)
    for i in range(count):
        p = after_bulk(p, &data, &size)
        if arguments is not None:
            arguments.append(PyBytes_FromStringAndSize(data, size))
    return p


cdef class HashWriter(TableWriter):
    """Encodes rows as HSET commands.

    Args:
        stream, columns, key, and the arguments in `layout`: as for TableWriter.

    Raises:
        EncodeError: as from TableWriter, and for a column of nested values.
    """

    cdef list owned_names
    cdef Literal* names         # of the fields, as bulk strings
    cdef Py_ssize_t text_digits

    def __init__(self, ArrowStream stream, *, columns, list key, **layout):
        cdef Py_ssize_t i
        TableWriter.__init__(
            self, stream, Command(b"HSET", many=False), columns=columns, key=key, tag=b"", row_codec=None, **layout
        )
        self.text_digits = 1
        self.owned_names = []
        self.names = <Literal*>PyMem_RawCalloc(self.n_values + 1, sizeof(Literal))
        if self.names == NULL:
            raise MemoryError()
        for i in range(self.n_values):
            self.names[i] = literal(self.field_name(&self.columns[i]))

    def __dealloc__(self):
        PyMem_RawFree(self.names)

    cdef bytes field_name(self, Column* column):
        """Return the field's name as a bulk string, which `owned_names` keeps alive."""
        path = (<bytes>column.path).decode("utf-8", "surrogateescape")
        if not is_flat(column):
            raise EncodeError(f"column {path!r}: a hash cannot hold nested values; use as_='value'")
        name = path.encode("utf-8", "surrogateescape")
        name = b"$%d\r\n%b\r\n" % (len(name), name)
        self.owned_names.append(name)
        return name

    def blank(self):
        """Return an empty chunk for fill()."""
        return HashChunk(self.command)

    cdef int put_row(self, TableChunk chunk) except -1 nogil:
        cdef char* p = make_room(chunk, chunk.data + chunk.end, 3 * HEADER_ROOM)
        cdef Py_ssize_t key
        cdef Py_ssize_t fields = self.count_fields()
        if fields == 0:
            refuse_empty()
        p[0] = c'*'
        p = put_decimal_int(p + 1, 2 + 2 * fields, False)
        memcpy(p, b"\r\n$4\r\nHSET\r\n", 12)
        p += 12
        key = p - chunk.data
        p = self.put_key(chunk, p + self.key_digits + 3)
        p = close_bulk(chunk, p, key, &self.key_digits)
        p = self.put_texts(chunk, p)
        chunk.end = p - chunk.data
        return 0

    cdef Py_ssize_t count_fields(self) except -1 nogil:
        """Return how many fields of the row are not null."""
        cdef int64_t at = self.stream.batch.offset + self.row
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t i
        for i in range(self.n_values):
            count += not is_missing(&self.columns[i], at + self.columns[i].offset)
        return count

    cdef char* put_texts(self, OutputBuffer out, char* p) except NULL nogil:
        """Write the names and values of the fields that are not null."""
        cdef int64_t at = self.stream.batch.offset + self.row
        cdef Column* column
        cdef Py_ssize_t i, header
        check_row(self.stream, at)
        for i in range(self.n_values):
            column = &self.columns[i]
            if is_missing(column, at + column.offset):
                continue
            p = put_literal(out, p, &self.names[i], HEADER_ROOM)
            header = p - out.data
            p = put_plain(out, p + self.text_digits + 3, column, at + column.offset, HEADER_ROOM)
            p = close_bulk(out, p, header, &self.text_digits)
        return p

    cdef object row_value(self):
        """Return the current row's fields as bytes, for a report about its failure.

        A field that cannot be written is as raw_field() returns it.
        """
        cdef dict row = {}
        cdef Py_ssize_t i
        if is_null_row(self.stream, self.at()):
            return None
        for i in range(self.n_values):
            name = (<bytes>self.owned_names[i]).partition(b"\r\n")[2].removesuffix(b"\r\n")
            try:
                if not is_missing(&self.columns[i], self.at() + self.columns[i].offset):
                    row[name] = self.text_of(&self.columns[i])
            except (FastBatchError, MemoryError):
                found = self.raw_field(i)
                row[name] = b"%d" % found if isinstance(found, int) else found
        return row

    cdef bytes text_of(self, Column* column):
        cdef OutputBuffer out = OutputBuffer()
        cdef char* p = make_room(out, out.data, HEADER_ROOM)
        p = put_plain(out, p, column, self.at() + column.offset, HEADER_ROOM)
        return PyBytes_FromStringAndSize(out.data, p - out.data)
