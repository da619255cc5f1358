# cython: language_level=3
"""Writes the rows of a table as Redis hashes: an HSET for each row."""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from redis_fastbatch._core.arrow.bulk cimport Literal, close_bulk, literal, put_literal
from redis_fastbatch._core.arrow.cells cimport is_flat, is_missing
from redis_fastbatch._core.arrow.chunk cimport TableChunk
from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.arrow.rows cimport TableWriter, check_row, is_null_row
from redis_fastbatch._core.arrow.stream cimport ArrowStream
from redis_fastbatch._core.arrow.values cimport make_room, put_plain
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.runtime.decimals cimport put_decimal_int
from redis_fastbatch._core.resp.commands cimport Word, first_word, next_word
from redis_fastbatch._core.resp.encoder cimport Chunk, Command, Place
from redis_fastbatch._core.resp.expiry cimport Times
from redis_fastbatch._core.resp.hashes cimport whole_item

from redis_fastbatch.errors import EncodeError, FastBatchError

cdef enum:
    HEADER_ROOM = 32


cdef int refuse_empty() except -1 nogil:
    with gil:
        raise EncodeError("a hash must have at least one field, but every field of the row is null")


cdef class HashChunk(TableChunk):
    """A chunk with an HSET for each row.

    Attributes:
        most_fields: the most fields that one of its hashes has.
    """

    cdef readonly Py_ssize_t most_fields

    def __init__(self, Command command):
        TableChunk.__init__(self, command, None)

    def restart(self, Command command):
        """Empty the chunk for new items, and keep its memory."""
        self.most_fields = 0
        self.times = None if command.expiry is None else Times()
        TableChunk.restart(self, command)

    def row_value(self, Py_ssize_t wanted):
        """Return the fields of a row as bytes."""
        cdef const char* p = self.data + self.command.headroom
        cdef Place place
        cdef Py_ssize_t i
        if not 0 <= wanted < self.items:
            raise IndexError(wanted)
        for i in range(wanted + 1):
            p = self.next_item(p, &place)
        arguments = arguments_of(place.data)
        return dict(zip(arguments[2::2], arguments[3::2]))

    cdef Chunk blank(self, Command command):
        return HashChunk(command)

    cdef int put_time(self, int64_t number) except -1 nogil:
        return self.times.add(number)

    cdef const char* next_item(self, const char* p, Place* place) noexcept:
        return whole_item(p, PyBytes_GET_SIZE(self.command.prefix), place)

    cdef int adopt(self, Chunk other, Py_ssize_t i) except -1:
        self.most_fields = max(self.most_fields, (<HashChunk>other).most_fields)
        return TableChunk.adopt(self, other, i)


cdef list arguments_of(const char* p):
    """Return the arguments of a command that this module wrote."""
    cdef list arguments = []
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    cdef Word word
    p = first_word(p, &count)
    for i in range(count):
        p = next_word(p, &word)
        arguments.append(PyBytes_FromStringAndSize(word.data, word.size))
    return arguments


cdef class HashWriter(TableWriter):
    """Encodes rows as HSET commands.

    Args:
        stream, command, columns, key, and the arguments in `layout`: as for TableWriter.

    Raises:
        EncodeError: as from TableWriter, and for a column of nested values.
    """

    cdef list owned_names
    cdef Literal* names         # of the fields, as bulk strings
    cdef Py_ssize_t text_digits

    def __init__(self, ArrowStream stream, Command command, *, columns, list key, **layout):
        cdef Py_ssize_t i
        TableWriter.__init__(
            self, stream, command, columns=columns, key=key, tag=b"", row_codec=None, **layout
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
            raise EncodeError(
                f"column {path!r}: a hash cannot hold nested values, except vectors, which are fixed_size_list of "
                "floats; use as_='value'"
            )
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
        if fields > (<HashChunk>chunk).most_fields:
            (<HashChunk>chunk).most_fields = fields
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
