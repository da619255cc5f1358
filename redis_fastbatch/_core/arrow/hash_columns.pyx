# cython: language_level=3
"""Reads the replies to HGETALL and HMGET into Arrow columns: each value goes from its received bytes into the buffers.

The values of a hash are text. They are read as the type of their column: numbers and bools are parsed here, and
dates, times and decimals stay text, which the caller converts.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint64_t

from redis_fastbatch._core.arrow.builder cimport BINARIES, BLANK, BOOLS, FLOATS, INTS, TEXTS, UINTS, ColumnBuilder
from redis_fastbatch._core.arrow.memory cimport push8
from redis_fastbatch._core.arrow.reading cimport Reading
from redis_fastbatch._core.arrow.rows_builder cimport RowsBuilder
from redis_fastbatch._core.resp.field_values cimport parse_float
from redis_fastbatch._core.resp.replies cimport ReplyReader
from redis_fastbatch._core.runtime.utf8 cimport same_bytes

from redis_fastbatch._core.resp.replies import ErrorReply, ProtocolError
from redis_fastbatch._messages import format_key
from redis_fastbatch.errors import DecodeError

cdef enum:
    INCOMPLETE = 0

cdef Py_ssize_t ALL = 1 << 62
cdef uint64_t LARGEST = <uint64_t>0xFFFFFFFFFFFFFFFF

cdef object NOT_ENOUGH = object()


cdef class HashColumns:
    """Reads the replies to HGETALL or HMGET into columns.

    Args:
        builder: gets the rows. Its columns are those whose fields HMGET asks for; without columns it gets all
            fields, as text.
        wanted: whether the builder's columns were given.
        max_value_size: a longer value is refused, in bytes; 0 for no limit. A ReplyReader has a limit of its own.

    Attributes:
        builder: as given.
    """

    def __init__(self, RowsBuilder builder, *, bint wanted, Py_ssize_t max_value_size=0):
        self.builder = builder
        self.wanted = wanted
        self.max_value_size = max_value_size

    def read(self, reader, list keys, Py_ssize_t done, default, out, list failures, Py_ssize_t most=ALL):
        """Read the hashes of `keys`, from key number `done` on, as HashRows.read() does.

        What goes into `out` for a hash is the number of its row. After a failure no more rows are taken.
        """
        cdef ReplyReader bytes_reader = reader if isinstance(reader, ReplyReader) else None
        cdef Py_ssize_t end = len(keys)
        cdef bint into_dict = isinstance(out, dict)
        if most < end - done:
            end = done + most
        while done < end:
            key = keys[done]
            if bytes_reader is not None:
                found = self.next_row(bytes_reader, key, failures)
            else:
                found = self.next_parsed(reader, key, failures)
            if found is NOT_ENOUGH:
                break
            if found is None:
                found = default
            if into_dict:
                out[key] = found
            else:
                out.append((key, found))
            done += 1
        return done

    cdef object next_row(self, ReplyReader reader, key, list failures):
        """Return the number of the next row, None if the hash is missing, or NOT_ENOUGH."""
        cdef Py_ssize_t stop
        if not reader.pending and not reader.skip_pushes():
            return NOT_ENOUGH
        try:
            # A row is begun when all of it is there: its columns cannot be taken back.
            stop = reader.whole_end()
        except DecodeError as error:
            error.key = key
            raise
        if stop == INCOMPLETE:
            return NOT_ENOUGH
        if reader.data[reader.position] in b"-!":
            failures.append((key, None, reader.reply()[0]))
            return None
        row = None
        if not self.builder.incomplete:
            self.builder.incomplete = True
            try:
                row = self.append_reply(reader)
                self.builder.incomplete = False
            except DecodeError as error:
                failures.append((key, None, error))
                error.key = key
        reader.position = stop
        return row

    cdef object append_reply(self, ReplyReader reader):
        """Append the hash at the reader's position as a row, and return its number; None if it is empty."""
        cdef char kind = reader.data[reader.position]
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t start, i
        cdef ColumnBuilder column
        if kind != c'*' and kind != c'%':
            reader.broken(f"a hash was expected, found a reply that begins with byte {kind & 0xFF:#04x}")
        reader.position = reader.bulk_start(&count)
        if self.wanted:
            if kind != c'*' or count != PyList_GET_SIZE(self.builder.root.children):
                reader.broken(f"an array of another length was expected, found {count} elements")
        elif count < 0 or (kind == c'*' and count & 1):
            reader.broken(f"pairs of names and values were expected, found {count} elements")
        elif kind == c'*':
            count >>= 1
        if count == 0:
            return None
        for i in range(count):
            if self.wanted:
                column = <ColumnBuilder>PyList_GET_ITEM(self.builder.root.children, i)
            else:
                start = next_bulk(reader, &size)
                if size < 0:
                    reader.broken("a null in place of a field's name")
                column = self.column(reader.data + start, size, i)
            start = next_bulk(reader, &size)
            if size >= 0:
                self.append_value(column, reader.data + start, size)
            elif not self.wanted:
                reader.broken("a null in place of a field's value")
        return self.end_row()

    cdef ColumnBuilder column(self, const char* name, Py_ssize_t size, Py_ssize_t i):
        """Return the column of a field, which is made if it is new. The field is number i of its row."""
        cdef ColumnBuilder root = self.builder.root
        cdef ColumnBuilder column
        cdef Py_ssize_t header
        cdef bytes wire
        cdef Reading r
        if i < PyList_GET_SIZE(root.children):
            # Rows mostly have the same fields in the same order. The tag ends with the name.
            column = <ColumnBuilder>PyList_GET_ITEM(root.children, i)
            header = 1 if size < 32 else 2 if size < 256 else 3
            if PyBytes_GET_SIZE(column.tag) == header + size and column.length == root.length:
                if same_bytes(PyBytes_AS_STRING(column.tag) + header, name, size):
                    return column
        wire = PyBytes_FromStringAndSize(name, size)
        column = root.places.get(wire)
        if column is None:
            try:
                text = wire.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DecodeError(f"expected UTF-8 in the name of a field, found {wire!r:.80}: {error.reason}")
            if "\0" in text:
                # In the C data interface a zero byte ends a name.
                raise DecodeError(f"a field's name must not have a zero byte in a table, found {wire!r:.80}")
            r.begin = r.p = r.end = NULL
            column = root.new_child(text, &r)
            column.append_nulls(root.length)
            root.children.append(column)
            root.places[wire] = column
        if column.length > root.length:
            raise DecodeError(f"a hash must have each field once, found {column.name!r} twice")
        return column

    cdef int append_value(self, ColumnBuilder column, const char* data, Py_ssize_t size) except -1:
        try:
            return self.append_text_value(column, data, size)
        except DecodeError as error:
            if not error.reason.startswith("field "):
                error.field = column.name
            raise

    cdef int append_text_value(self, ColumnBuilder column, const char* data, Py_ssize_t size) except -1:
        cdef Reading r
        cdef double number = 0.0
        cdef uint64_t magnitude = 0
        cdef bint negative = False
        r.begin = r.p = <const uint8_t*>data
        r.end = r.begin + size
        if column.shape == INTS or column.shape == UINTS:
            if not parse_integer(data, size, &magnitude, &negative):
                raise unfit("an integer of 64 bits", data, size)
            if negative:
                return column.append_int(&r, <int64_t>(<uint64_t>0 - magnitude))
            return column.append_uint(&r, magnitude)
        if column.shape == FLOATS:
            parse_float(data, size, &number)
            return column.append_float(&r, number)
        if column.shape == BOOLS:
            if size != 1 or not c'0' <= data[0] <= c'1':
                raise unfit("1 or 0", data, size)
            push8(&column.values, data[0] == c'1')
            push8(&column.valid, 1)
            column.length += 1
            return 0
        if column.shape == BINARIES:
            return column.append_binary(&r, size)
        if column.shape == BLANK and column.fixed:
            raise unfit("no value", data, size)
        return column.append_text(&r, size)

    cdef object end_row(self):
        """End a row, and return its number. Columns whose fields the hash does not have get null."""
        cdef ColumnBuilder root = self.builder.root
        cdef int64_t row = root.length
        cdef Py_ssize_t i
        cdef ColumnBuilder column
        for i in range(PyList_GET_SIZE(root.children)):
            column = <ColumnBuilder>PyList_GET_ITEM(root.children, i)
            if column.length == row:
                column.append_null()
        push8(&root.valid, 1)
        root.length += 1
        return row

    # Replies that another parser has read.

    def next_parsed(self, reader, key, list failures):
        """Do what next_row() does, with the replies of another parser."""
        whole = reader.reply()
        if whole is None:
            return NOT_ENOUGH
        if isinstance(whole[0], ErrorReply):
            failures.append((key, None, whole[0]))
            return None
        if self.builder.incomplete:
            return None
        self.builder.incomplete = True
        try:
            row = self.append_parsed(whole[0])
            self.builder.incomplete = False
            return row
        except ProtocolError as error:
            reader.broken(str(error))
        except DecodeError as error:
            error.key = key
            failures.append((key, None, error))
        return None

    cdef object append_parsed(self, object reply):
        cdef Py_ssize_t i = 0
        cdef ColumnBuilder column
        cdef bytes data
        if isinstance(reply, dict):
            reply = [word for pair in reply.items() for word in pair]
        expected = len(self.builder.root.children) if self.wanted else 2 * (len(reply) // 2)
        if not isinstance(reply, list) or len(reply) != expected:
            raise ProtocolError(f"a hash was expected, found {reply!r:.80}")
        if not reply:
            return None
        names = None if self.wanted else reply[::2]
        for value in reply if self.wanted else reply[1::2]:
            if names is None:
                column = self.builder.root.children[i]
            else:
                data = as_bytes(names[i])
                column = self.column(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), i)
            i += 1
            if value is not None:
                data = as_bytes(value)
                if self.max_value_size and len(data) > self.max_value_size:
                    raise DecodeError(f"a value of {len(data)} bytes: max_value_size is {self.max_value_size}")
                self.append_value(column, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return self.end_row()


cdef bytes as_bytes(object value):
    if not isinstance(value, bytes):
        raise ProtocolError(f"a string was expected, found {value!r:.80}")
    return value


cdef Py_ssize_t next_bulk(ReplyReader reader, Py_ssize_t* size) except -1:
    """Return where the bytes of the next bulk string begin, and move to its end. Its size is -1 for a null.

    The reply has arrived whole, and its bulk strings end where their lengths say.
    """
    cdef Py_ssize_t at = reader.position
    cdef Py_ssize_t start
    if reader.data[at] == c'_':
        size[0] = -1
        reader.position = at + 3
        return at
    if reader.data[at] != c'$':
        reader.broken(f"a string was expected, found a reply that begins with byte {reader.data[at] & 0xFF:#04x}")
    start = reader.bulk_start(size)
    if size[0] < -1:
        reader.broken(f"a bulk string of {size[0]} bytes")
    reader.position = start if size[0] < 0 else start + size[0] + 2
    return start


cdef bint parse_integer(const char* data, Py_ssize_t size, uint64_t* magnitude, bint* negative) noexcept:
    """Read an integer that an int64 or uint64 holds. Return False for any other text."""
    cdef Py_ssize_t at = size > 0 and data[0] == c'-'
    cdef uint64_t number = 0
    cdef uint64_t digit
    negative[0] = at
    if at == size:
        return False
    while at < size:
        if not c'0' <= data[at] <= c'9':
            return False
        digit = <uint64_t>(data[at] - c'0')
        if number > (LARGEST - digit) // 10:
            return False
        number = number * 10 + digit
        at += 1
    magnitude[0] = number
    return not negative[0] or number <= <uint64_t>INT64_MAX + 1


cdef object unfit(str expected, const char* data, Py_ssize_t size):
    """Return the error about a value that does not have the type of its column."""
    found = format_key(PyBytes_FromStringAndSize(data, size))
    return DecodeError(f"{expected} was expected, found {found}")
