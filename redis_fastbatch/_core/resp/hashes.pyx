# cython: language_level=3
"""Writes mappings as Redis hashes: an HSET for each, and an EXPIRE for each hash that was written.

Each item is a whole command here, because HSET has as many arguments as its hash has fields.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.commands cimport CommandEncoder, Word, after_command, first_word, next_word
from redis_fastbatch._core.resp.encoder cimport Chunk, Command, Place
from redis_fastbatch._core.resp.expiry cimport ItemExpiry, Times
from redis_fastbatch._core.resp.framing cimport digits, put_header
from redis_fastbatch._core.resp.replies cimport ReplyReader
from redis_fastbatch._core.resp.routed cimport RoutedWriter, Router
from redis_fastbatch._core.runtime.buffer cimport reserve
from redis_fastbatch._core.runtime.decimals cimport put_decimal_int

from collections.abc import Mapping

from redis_fastbatch._messages import format_key
from redis_fastbatch.errors import EncodeError

cdef enum:
    INCOMPLETE = 0
    VALUE = 0           # stands for the number of an argument that is a value
    FIRST_FIELD = 2     # the number of the first field's name among HSET's arguments

cdef extern from "Python.h":
    Py_ssize_t PyDict_GET_SIZE(dict mapping)

cdef bytes BULK_HSET = b"$4\r\nHSET\r\n"


cdef class HashCommand(Command):
    """A command of hashes. What is written for an item is the whole command.

    Args:
        name: the command, such as b"HSET".
        expiry: the expiry of each hash, if it is not the same for all. It is sent in a command of its own.
    """

    def __init__(self, bytes name, ItemExpiry expiry=None):
        Command.__init__(self, name, many=False, expiry=expiry)
        self.prefix = b""


HSET = HashCommand(b"HSET")


cdef const char* whole_item(const char* p, Py_ssize_t prefix, Place* place) noexcept:
    """Find the item at `p`, which is a whole command after a prefix. Return where the next one begins."""
    cdef Py_ssize_t count = 0
    cdef Word word
    word.data = NULL
    word.size = 0
    place.data = p + prefix
    next_word(next_word(first_word(place.data, &count), &word), &word)
    place.key = word.data
    place.key_size = word.size
    p = after_command(place.data)
    place.size = p - place.data
    return p


cdef class MappingChunk(Chunk):
    """A chunk with an HSET for each mapping.

    Args:
        command: HSET, or ASKING and HSET.
        encoder: encodes names, and values where there is no codec.
        codec: encodes values; None for none.

    Attributes:
        most_fields: the most fields that one of its hashes has.
    """

    def __init__(self, Command command, CommandEncoder encoder, ValueCodec codec):
        self.encoder = encoder
        self.field_codec = codec
        Chunk.__init__(self, command)

    def restart(self, Command command):
        """Empty the chunk for new items, and keep its memory."""
        self.most_fields = 0
        self.times = None if command.expiry is None else Times()
        Chunk.restart(self, command)

    cdef int put_item(self, object key, object value, ValueCodec codec, str encoding, str errors) except -1:
        cdef list pairs
        if PyDict_CheckExact(value):
            self.put_head(PyDict_GET_SIZE(value))
            self.put_key(key, encoding, errors)
            return self.put_fields_locked(value) if FREE_THREADED else self.put_fields(value)
        if not isinstance(value, Mapping):
            raise EncodeError(
                f"the fields of a hash must be a mapping, such as a dict, found {type(value).__name__} "
                f"{format_key(value):.100}"
            )
        pairs = list(value.items())
        self.put_head(len(pairs))
        self.put_key(key, encoding, errors)
        return self.put_pairs(pairs)

    cdef int put_head(self, Py_ssize_t fields) except -1:
        cdef Py_ssize_t arguments = 2 + 2 * fields
        cdef char* p
        if fields == 0:
            raise EncodeError("a hash must have at least one field, found an empty mapping")
        reserve(self, 64)
        p = put_header(self.data + self.end, c'*', arguments, digits(arguments))
        memcpy(p, PyBytes_AS_STRING(BULK_HSET), PyBytes_GET_SIZE(BULK_HSET))
        self.end = p + PyBytes_GET_SIZE(BULK_HSET) - self.data
        if fields > self.most_fields:
            self.most_fields = fields
        return 0

    cdef int put_fields_locked(self, dict fields) except -1:
        """Write the fields while no other thread changes the dict."""
        with cython.critical_section(fields):
            return self.put_fields(fields)

    cdef int put_fields(self, dict fields) except -1:
        cdef Py_ssize_t count = PyDict_GET_SIZE(fields)
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t i = FIRST_FIELD
        cdef PyObject* next_name
        cdef PyObject* next_value
        cdef object name = None
        cdef object value = None
        try:
            while PyDict_Next(fields, &position, &next_name, &next_value):
                # References of its own: encoding may run Python code, which may change the dict.
                name = <object>next_name
                value = <object>next_value
                self.encoder.put_argument(self, name, i)
                self.put_field_value(value)
                i += 2
                if PyDict_GET_SIZE(fields) != count:
                    break
        except EncodeError as error:
            raise about_field(error, name, value)
        if i != FIRST_FIELD + 2 * count or PyDict_GET_SIZE(fields) != count:
            raise EncodeError("the dict of fields changed size while it was written")
        return 0

    cdef int put_pairs(self, list pairs) except -1:
        cdef object name = None
        cdef object value = None
        try:
            for name, value in pairs:
                self.encoder.put_argument(self, name, FIRST_FIELD)
                self.put_field_value(value)
        except EncodeError as error:
            raise about_field(error, name, value)
        return 0

    cdef int put_field_value(self, object value) except -1:
        if self.field_codec is not None:
            return self.put_value(value, self.field_codec)
        return self.encoder.put_argument(self, value, VALUE)

    cdef int put_time(self, int64_t number) except -1 nogil:
        return self.times.add(number)

    cdef const char* next_item(self, const char* p, Place* place) noexcept:
        return whole_item(p, PyBytes_GET_SIZE(self.command.prefix), place)

    cdef Chunk blank(self, Command command):
        return MappingChunk(command, self.encoder, self.field_codec)

    cdef int adopt(self, Chunk other, Py_ssize_t i) except -1:
        self.most_fields = max(self.most_fields, (<MappingChunk>other).most_fields)
        return Chunk.adopt(self, other, i)


cdef object about_field(object error, object name, object value):
    """Return an EncodeError that names the field which cannot be encoded."""
    cdef str reason = error.reason
    if "misfit" in error.__dict__:
        # The place within the mapping is added later, and begins with the field's name.
        return error
    if reason.startswith("argument 0 "):
        better = EncodeError(f"field {format_key(name)} {reason.removeprefix('argument 0 ')}")
    elif reason.startswith("argument "):
        better = EncodeError(f"the name of a field {reason.split(' ', 2)[2]}")
    else:
        better = EncodeError(f"field {format_key(name)}: {reason}")
    better.__cause__ = error.__cause__
    return better


cdef class ExpireChunk(Chunk):
    """A chunk with an EXPIRE for some hashes of another chunk, which are its items.

    Args:
        expire: EXPIRE, PEXPIRE, EXPIREAT or PEXPIREAT, with its time unless each hash has a time of its own.
        hashes: the chunk of HSETs.
        written: the positions of those hashes.

    Attributes:
        hashes, expire, written: as given.
        most_fields: the greatest number that EXPIRE is answered with. 0 is the answer where the key is gone: it was
            written, and what came after that is not ours.
    """

    most_fields = 1

    def __init__(self, Command expire, Chunk hashes, list written):
        cdef const char* p = hashes.data + hashes.command.headroom
        cdef Place place
        cdef char[20] text
        cdef char* stop
        cdef Py_ssize_t next_written = 0
        cdef Py_ssize_t i
        self.hashes = hashes
        self.expire = expire
        self.written = []
        Chunk.__init__(self, HashCommand(expire.name))
        for i in range(hashes.items):
            if next_written == len(written):
                break
            p = hashes.next_item(p, &place)
            if i == written[next_written]:
                next_written += 1
                self.append(PyBytes_AS_STRING(expire.prefix), PyBytes_GET_SIZE(expire.prefix))
                self.put_bulk(place.key, place.key_size)
                if hashes.times is not None:
                    stop = put_decimal_int(text, hashes.times.numbers[i], False)
                    self.put_bulk(text, stop - text)
                self.append(PyBytes_AS_STRING(expire.suffix), PyBytes_GET_SIZE(expire.suffix))
                self.written.append(i)
                self.items += 1
        self.seal()

    @property
    def keys(self):
        """The keys of the hashes, or their rows' numbers."""
        cdef list keys = self.hashes.keys
        return list(map(keys.__getitem__, self.written))

    @property
    def values(self):
        """The mappings, or the rows' fields."""
        values = self.hashes.values
        return list(map(values.__getitem__, self.written))

    cdef const char* next_item(self, const char* p, Place* place) noexcept:
        return whole_item(p, PyBytes_GET_SIZE(self.command.prefix), place)

    cdef Chunk blank(self, Command command):
        cdef ExpireChunk other = ExpireChunk(self.expire, self.hashes, [])
        other.restart(command)
        return other

    cdef int adopt(self, Chunk other, Py_ssize_t i) except -1:
        self.written.append((<ExpireChunk>other).written[i])
        self.items += 1
        return 0


cdef class MappingWriter(BatchWriter):
    """Encodes mappings into chunks of HSETs.

    Args:
        items: a mapping or an iterable of (key, mapping of fields) pairs.
        command: HSET.
        codec: makes bytes of the values of fields. None writes them as redis-py does: str, bytes, int and float.
        max_items, max_bytes, encoding, errors: as for BatchWriter.

    Attributes:
        batches: how often items were taken from a source that may wait.
    """

    def __init__(
        self,
        items,
        Command command,
        ValueCodec codec,
        *,
        Py_ssize_t max_items,
        Py_ssize_t max_bytes,
        str encoding="utf-8",
        str errors="strict",
    ):
        BatchWriter.__init__(
            self,
            items,
            command,
            ValueCodec(),
            max_items=max_items,
            max_bytes=max_bytes,
            encoding=encoding,
            errors=errors,
        )
        self.encoder = CommandEncoder(encoding, errors)
        self.field_codec = codec

    @property
    def rows_left(self):
        """How many items are there without waiting for the source, as far as is known."""
        return self.max_items if self.in_memory else 0

    def blank(self):
        """Return an empty chunk for fill()."""
        return MappingChunk(self.command, self.encoder, self.field_codec)

    def fill_some(self, Chunk chunk, Py_ssize_t most):
        """Put up to `most` more items into `chunk`. Seal it when it is full or there are no more."""
        self.batches += not self.in_memory
        BatchWriter.fill_some(self, chunk, most)


cdef class RoutedMappingWriter(RoutedWriter):
    """Encodes mappings into chunks of HSETs for the nodes of a cluster.

    Args:
        items, command, codec, max_items, max_bytes, encoding, errors: as for MappingWriter.
        router: knows which node has which slot.
    """

    def __init__(
        self,
        items,
        Command command,
        ValueCodec codec,
        Router router,
        *,
        Py_ssize_t max_items,
        Py_ssize_t max_bytes,
        str encoding="utf-8",
        str errors="strict",
    ):
        RoutedWriter.__init__(
            self,
            items,
            command,
            ValueCodec(),
            router,
            max_items=max_items,
            max_bytes=max_bytes,
            encoding=encoding,
            errors=errors,
        )
        self.encoder = CommandEncoder(encoding, errors)
        self.field_codec = codec

    def blank(self):
        """Return an empty chunk."""
        return MappingChunk(self.command, self.encoder, self.field_codec)


def all_counts(ReplyReader reader, Py_ssize_t count, Py_ssize_t most):
    """Return whether `count` numbers from 0 to `most` have arrived, and nothing else.

    They are read then. Else nothing is read: counts() reads them, and finds the other replies.
    """
    cdef Py_ssize_t start = reader.position
    cdef Py_ssize_t i
    for i in range(count):
        if reader.next_number(most) < 0:
            break
    else:
        if reader.position == reader.end:
            return True
    reader.position = start
    return False


def counts(reader, Py_ssize_t limit, Py_ssize_t first, list others, Py_ssize_t most):
    """Read up to `limit` replies, and return how many had arrived.

    Numbers from 0 to `most` are only counted. Every other reply is appended to `others` as (first + its index,
    reply).

    Args:
        reader: a ReplyReader, or another object with its reply().
        limit, first, others, most: see above.
    """
    cdef ReplyReader bytes_reader = reader if isinstance(reader, ReplyReader) else None
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t stop, number
    while done < limit:
        if bytes_reader is not None:
            stop = bytes_reader.after_integer()
            if stop != INCOMPLETE:
                number = bytes_reader.integer(bytes_reader.position + 1, stop - 2)
                if 0 <= number <= most:
                    bytes_reader.position = stop
                    done += 1
                    continue
        whole = reader.reply()
        if whole is None:
            break
        reply = whole[0]
        if type(reply) is not int or not 0 <= reply <= most:
            others.append((first + done, reply))
        done += 1
    return done
