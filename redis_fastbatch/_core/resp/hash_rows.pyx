# cython: language_level=3
"""Reads the replies to HGETALL and HMGET as dicts, with values of the types that are asked for.

Rows usually have the same fields in the same order. So each name is compared with the name at its place in the last
row, and is made only once. Where several rows were alike, the next ones are copies of a template.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject
from libc.string cimport memcmp

from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.field_values cimport (
    BOOL,
    CODEC,
    FLOAT,
    INT,
    RAW,
    TEXT,
    integer,
    kind_of,
    parse_float,
    unfit,
)
from redis_fastbatch._core.resp.replies cimport ReplyReader
from redis_fastbatch._core.runtime.interned cimport make_text
from redis_fastbatch._core.runtime.rows cimport (
    WIDEST_ROW,
    RowShape,
    Shapes,
    finish_row,
    is_worth_learning,
    make_shape,
    put_value,
)

import codecs
from collections.abc import Mapping

from redis_fastbatch._core.resp.replies import ErrorReply, ProtocolError
from redis_fastbatch.errors import DecodeError

cdef enum:
    INCOMPLETE = 0
    MOST_SHAPES = 64
    MOST_FIELDS = 4096      # names that are kept; hashes of random names must not fill the memory

cdef Py_ssize_t ALL = 1 << 62

cdef object NOT_ENOUGH = object()
cdef object MISSING = object()

cdef dict MADE_SHAPES = {}
"""Templates of rows, by the names in the rows and on the wire. To make one takes as long as many rows, and small batches
ask for the same fields again and again."""


cdef RowShape made_shape(tuple names):
    """Return the template of rows with these names, as (names in the rows, names on the wire)."""
    cdef RowShape shape = MADE_SHAPES.get(names)
    if shape is None:
        shape = make_shape(names[0], list(names[1]))
        if len(MADE_SHAPES) >= MOST_SHAPES:
            del MADE_SHAPES[next(iter(MADE_SHAPES))]
        MADE_SHAPES[names] = shape
    return shape


cdef class Field:
    """A field's name, and how its values are read."""


cdef class HashRows:
    """Reads the replies to HGETALL or HMGET as dicts.

    Args:
        types: None, a type, or a mapping from names of fields to types: str, bytes, int, float or bool.
        codec: decodes the values of fields that have no type; None leaves them as the client gives them.
        fields: the fields of HMGET as (name, the name on the wire); None for HGETALL.
        decodes: whether the client decodes strings.
        encoding, errors: the client's encoding of strings.
        max_value_size: a longer value is refused, in bytes; 0 for no limit. A ReplyReader has a limit of its own.

    Raises:
        TypeError: `types` is something else.
    """

    def __init__(
        self,
        types=None,
        ValueCodec codec=None,
        list fields=None,
        *,
        bint decodes=False,
        str encoding="utf-8",
        str errors="strict",
        Py_ssize_t max_value_size=0,
    ):
        self.kinds = {}
        self.encoding = encoding
        self.errors = errors
        self.is_utf8 = errors == "strict" and codecs.lookup(encoding).name == "utf-8"
        self.max_value_size = max_value_size
        self.text_names = decodes or types is not None or codec is not None
        self.usual_kind = TEXT if decodes else RAW
        if codec is not None:
            self.usual_kind = CODEC
            self.usual_codec = codec
            self.holds_containers = True
        if isinstance(types, Mapping):
            for name, kind in types.items():
                wire = name.encode(encoding, errors) if isinstance(name, str) else name
                if not isinstance(wire, bytes):
                    raise TypeError(f"a field of types must be str or bytes, got {type(name).__name__} {name!r:.80}")
                self.kinds[wire] = kind_of(kind)
        elif types is not None:
            self.usual_kind = kind_of(types)
        self.known = {}
        self.order = []
        self.shapes = Shapes()
        if fields is not None:
            self.wanted = []
            for name, wire in fields:
                self.wanted.append(self.new_field(wire, name))
            names = dict.fromkeys([name for name, _ in fields])
            if len(names) == len(fields) <= WIDEST_ROW and all(type(name) is str for name in names):
                self.wanted_shape = tuple(names), tuple([wire for _, wire in fields])
                self.shape = MADE_SHAPES.get(self.wanted_shape)

    cdef Field new_field(self, bytes wire, object name):
        """Return a field; `name` is the name in the rows, or None to make it from the one on the wire."""
        cdef Field field = Field()
        field.wire = wire
        field.data = PyBytes_AS_STRING(wire)
        field.size = PyBytes_GET_SIZE(wire)
        field.kind = self.kinds.get(wire, self.usual_kind)
        field.codec = self.usual_codec
        if name is None:
            try:
                name = wire.decode(self.encoding, self.errors) if self.text_names else wire
            except UnicodeDecodeError as error:
                self.undecodable = wire
                raise DecodeError(f"the name of a field is not {self.encoding}, found {wire!r:.80}") from error
        field.name = name
        return field

    cdef Field field_at(self, Py_ssize_t i, const char* data, Py_ssize_t size):
        """Return the field with a name, which is number i of its row."""
        cdef Py_ssize_t count = len(self.order)
        cdef Field field
        cdef bytes wire
        if i < count:
            field = <Field>self.order[i]
            if field.size == size and memcmp(field.data, data, size) == 0:
                return field
        self.in_order = False
        wire = PyBytes_FromStringAndSize(data, size)
        field = self.known.get(wire)
        if field is None:
            field = self.new_field(wire, None)
            if len(self.known) < MOST_FIELDS:
                self.known[wire] = field
        if i < count:
            self.order[i] = field
        elif i < MOST_FIELDS:
            self.order.append(field)
        return field

    def read(self, reader, list keys, Py_ssize_t done, default, out, list failures, Py_ssize_t most=ALL):
        """Read the hashes of `keys`, from key number `done` on.

        Each goes into `out`: into a dict under its key, to the end of a list as (key, hash). For a missing hash and
        one that cannot be read it is `default`.

        Args:
            reader: a ReplyReader, or another object with its reply().
            keys, done, default, out: see above.
            failures: gets (key, bytes or None, exception) for each hash that cannot be read. The bytes are those of
                the value that cannot be converted.
            most: the most hashes to read.

        Returns:
            How many of `keys` are done now.

        Raises:
            DecodeError: a value is longer than max_value_size. The rest of it cannot be skipped, so the connection
                cannot be used any longer.
            ProtocolError: the bytes are not RESP, or not such a reply.
        """
        cdef ReplyReader bytes_reader = reader if isinstance(reader, ReplyReader) else None
        cdef Py_ssize_t end = len(keys)
        cdef bint into_dict = isinstance(out, dict)
        if most < end - done:
            end = done + most
        while done < end:
            key = keys[done]
            if bytes_reader is not None:
                found = self.next_hash(bytes_reader, key, failures)
            else:
                found = self.next_parsed(reader, key, failures)
            if found is NOT_ENOUGH:
                break
            if found is MISSING:
                found = default
            if into_dict:
                PyDict_SetItem(out, key, found)
            else:
                out.append((key, found))
            done += 1
        return done

    def read_all(self, ReplyReader reader, list keys, default, dict out):
        """Read the hashes of `keys` into `out`, if just these have arrived.

        Returns:
            The number of bytes read. If it is 0, call read(): it reads what has arrived, and finds the errors. `out`
            may have some of the hashes then.
        """
        cdef Py_ssize_t start = reader.position
        cdef Py_ssize_t pushes = len(reader.pushes)
        cdef list failures = []
        try:
            if self.read(reader, keys, 0, default, out, failures) == len(keys) and not failures:
                if reader.position == reader.end and len(reader.pushes) == pushes:
                    return reader.position - start
        except Exception:
            # It is raised once more when the same bytes are read again.
            pass
        reader.rewind(start, pushes)
        return 0

    def next_hash(self, ReplyReader reader, key, list failures):
        """Return the next hash, MISSING, or NOT_ENOUGH. Append to `failures` if it cannot be read."""
        cdef Py_ssize_t start, stop
        try:
            if reader.pending:
                # A large reply whose end had not arrived: it is read once all of it is there.
                if reader.whole_end() == INCOMPLETE:
                    return NOT_ENOUGH
            elif not reader.skip_pushes():
                return NOT_ENOUGH
        except DecodeError as error:
            error.key = key
            raise
        start = reader.position
        if reader.data[start] in b"-!":
            whole = reader.reply()
            if whole is None:
                return NOT_ENOUGH
            failures.append((key, None, whole[0]))
            return MISSING
        self.undecodable = None
        failure = None
        found = MISSING
        # No `return` within `except`: Cython 3.3 crashes there if there was no memory for a traceback.
        try:
            found = self.row(reader)
        except DecodeError as error:
            error.key = key
            if self.undecodable is None:
                raise
            failure = error
        if failure is None and found is not NOT_ENOUGH:
            return found
        reader.position = start
        stop = reader.whole_end()
        if failure is None:
            if stop != INCOMPLETE:
                reader.broken("a hash whose parts do not end where it does")
            return NOT_ENOUGH
        if stop == INCOMPLETE:
            return NOT_ENOUGH
        reader.position = stop
        failures.append((key, self.undecodable, failure))
        return MISSING

    cdef object row(self, ReplyReader reader):
        """Return the hash at the reader's position; NOT_ENOUGH if it has not arrived whole."""
        cdef char kind = reader.data[reader.position]
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t start
        if kind != c'*' and kind != c'%':
            reader.broken(f"a hash was expected, found a reply that begins with byte {kind & 0xFF:#04x}")
        start = reader.bulk_start(&count)
        if start == INCOMPLETE:
            return NOT_ENOUGH
        reader.position = start
        if self.wanted is not None:
            if kind != c'*' or count != len(self.wanted):
                reader.broken(f"an array of {len(self.wanted)} was expected, found one of {count}")
            return self.some_fields(reader, count)
        if kind == c'*':
            if count < 0 or count & 1:
                reader.broken(f"pairs of names and values were expected, found {count} elements")
            count >>= 1
        elif count < 0:
            reader.broken(f"a map of {count} elements")
        return MISSING if count == 0 else self.all_fields(reader, count)

    cdef object all_fields(self, ReplyReader reader, Py_ssize_t count):
        """Return a dict of `count` names and values, which are next."""
        cdef RowShape shape = self.shape
        cdef bint alike = shape is not None and shape.count == count
        cdef dict row = shape.blank() if alike else {}
        cdef PyObject** slots = shape.slots(row) if alike else NULL
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t start, i
        cdef Field field
        self.in_order = True
        for i in range(count):
            start = self.bulk(reader, &size)
            if start == INCOMPLETE:
                return NOT_ENOUGH
            if size < 0:
                reader.broken("a null in place of a field's name")
            if alike:
                alike = shape.sizes[i] == size and memcmp(shape.keys[i], reader.data + start, size) == 0
                if not alike:
                    row = self.shapes.missed(shape, row, i)
                    self.shape = self.shapes.slots[0]
            field = <Field>self.shape_fields[i] if alike else self.field_at(i, reader.data + start, size)
            start = self.bulk(reader, &size)
            if start == INCOMPLETE:
                return NOT_ENOUGH
            if size < 0:
                reader.broken("a null in place of a field's value")
            value = self.convert(field, reader.data + start, size)
            if alike:
                put_value(shape, row, slots, i, value)
            else:
                PyDict_SetItem(row, field.name, value)
        if alike:
            finish_row(shape, row, slots, self.holds_containers)
        elif len(self.order) > count:
            del self.order[count:]
        elif self.in_order:
            self.learn(row)
        return row

    cdef int learn(self, dict row) except -1:
        """Make a template of rows like this one, if enough have come."""
        cdef Py_ssize_t count = len(row)
        if not self.text_names or count != len(self.order) or count > WIDEST_ROW:
            return 0
        if not is_worth_learning(self.shapes, 0):
            return 0
        self.shape = made_shape((tuple(row), tuple([(<Field>field).wire for field in self.order])))
        self.shapes.slots[0] = self.shape
        self.shape_fields = self.order[:]
        return 0

    cdef object some_fields(self, ReplyReader reader, Py_ssize_t count):
        """Return a dict of the wanted fields, whose values are next; MISSING if there are none."""
        cdef RowShape shape = self.shape
        cdef dict row = {} if shape is None else shape.blank()
        cdef PyObject** slots = NULL if shape is None else shape.slots(row)
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t nulls = 0
        cdef Py_ssize_t start, i
        cdef Field field
        for i in range(count):
            field = <Field>self.wanted[i]
            start = self.bulk(reader, &size)
            if start == INCOMPLETE:
                return NOT_ENOUGH
            if size < 0:
                nulls += 1
                if shape is not None:
                    # The template has None there.
                    continue
                value = None
            else:
                value = self.convert(field, reader.data + start, size)
            if shape is not None:
                put_value(shape, row, slots, i, value)
            else:
                PyDict_SetItem(row, field.name, value)
        if nulls == count:
            return MISSING
        if shape is not None:
            finish_row(shape, row, slots, self.holds_containers)
        elif self.wanted_shape is not None and is_worth_learning(self.shapes, 0):
            self.shape = made_shape(self.wanted_shape)
        return row

    cdef Py_ssize_t bulk(self, ReplyReader reader, Py_ssize_t* size) except -1:
        """Return where the bytes of the next bulk string begin, and move to its end.

        Return INCOMPLETE if it has not arrived. The size is -1 for a null.
        """
        cdef Py_ssize_t at = reader.position
        cdef Py_ssize_t start
        if at >= reader.end:
            return INCOMPLETE
        if reader.data[at] == c'_':
            if reader.end - at < 3:
                return INCOMPLETE
            size[0] = -1
            start = at + 3
            if reader.data[at + 1] != c'\r' or reader.data[at + 2] != c'\n':
                reader.broken("a null with bytes")
            reader.position = start
            return start
        if reader.data[at] != c'$':
            reader.broken(f"a string was expected, found a reply that begins with byte {reader.data[at] & 0xFF:#04x}")
        start = reader.bulk_start(size)
        if start == INCOMPLETE:
            return INCOMPLETE
        if size[0] < 0:
            if size[0] != -1:
                reader.broken(f"a bulk string of {size[0]} bytes")
            reader.position = start
            return start
        if reader.max_value_size and size[0] > reader.max_value_size:
            raise DecodeError(f"a value of {size[0]} bytes: max_value_size is {reader.max_value_size}")
        if reader.end - start - 2 < size[0]:
            return INCOMPLETE
        if reader.data[start + size[0]] != c'\r' or reader.data[start + size[0] + 1] != c'\n':
            reader.broken("a bulk string that does not end where its length says")
        reader.position = start + size[0] + 2
        return start

    cdef object convert(self, Field field, const char* data, Py_ssize_t size):
        """Return a value. Raise DecodeError, which names the field, and keep the bytes in `undecodable`."""
        try:
            return self.converted(field, data, size)
        except DecodeError as error:
            self.undecodable = PyBytes_FromStringAndSize(data, size)
            error.field = field.name
            raise

    cdef object converted(self, Field field, const char* data, Py_ssize_t size):
        cdef double number = 0.0
        if field.kind == RAW:
            return PyBytes_FromStringAndSize(data, size)
        if field.kind == INT:
            return integer(data, size)
        if field.kind == FLOAT:
            parse_float(data, size, &number)
            return number
        if field.kind == TEXT:
            return self.text(data, size)
        if field.kind == CODEC:
            return field.codec.decode(data, size)
        if size == 1 and (data[0] == c'0' or data[0] == c'1'):
            return data[0] == c'1'
        raise unfit(BOOL, data, size)

    cdef object text(self, const char* data, Py_ssize_t size):
        try:
            if self.is_utf8:
                return make_text(data, size)
            return PyBytes_FromStringAndSize(data, size).decode(self.encoding, self.errors)
        except UnicodeDecodeError as error:
            raise DecodeError(f"a str was expected, found bytes that are not {error.encoding}", error.start) from error

    # Replies that another parser has read.

    def next_parsed(self, reader, key, list failures):
        """Do what next_hash() does, with the replies of another parser."""
        whole = reader.reply()
        if whole is None:
            return NOT_ENOUGH
        if isinstance(whole[0], ErrorReply):
            failures.append((key, None, whole[0]))
            return MISSING
        self.undecodable = None
        found = MISSING
        try:
            found = self.parsed(whole[0])
        except ProtocolError as error:
            reader.broken(str(error))
        except DecodeError as error:
            error.key = key
            if self.undecodable is None:
                raise
            failures.append((key, self.undecodable, error))
        return found

    cdef object parsed(self, object reply):
        cdef dict row = {}
        cdef Py_ssize_t i = 0
        cdef Field field
        if self.wanted is not None:
            if not isinstance(reply, list) or len(reply) != len(self.wanted):
                raise ProtocolError(f"an array of {len(self.wanted)} was expected, found {reply!r:.80}")
            for field, value in zip(self.wanted, reply):
                row[field.name] = None if value is None else self.parsed_value(field, value)
            return MISSING if all(value is None for value in row.values()) else row
        if isinstance(reply, list) and len(reply) % 2 == 0:
            reply = dict(zip(reply[::2], reply[1::2]))
        if not isinstance(reply, dict):
            raise ProtocolError(f"a hash was expected, found {reply!r:.80}")
        for name, value in reply.items():
            wire = as_bytes(name)
            field = self.field_at(i, PyBytes_AS_STRING(wire), PyBytes_GET_SIZE(wire))
            row[field.name] = self.parsed_value(field, value)
            i += 1
        return row if row else MISSING

    cdef object parsed_value(self, Field field, object value):
        cdef bytes data = as_bytes(value)
        if self.max_value_size and PyBytes_GET_SIZE(data) > self.max_value_size:
            raise DecodeError(f"a value of {PyBytes_GET_SIZE(data)} bytes: max_value_size is {self.max_value_size}")
        return self.convert(field, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef bytes as_bytes(object value):
    if not isinstance(value, bytes):
        raise ProtocolError(f"a string was expected, found {value!r:.80}")
    return value
