# cython: language_level=3
"""Encodes batches as RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/).

A value is serialized in place, after room for its `$<length>` header. That room is as wide as the last value's
header; a value whose header is wider or narrower is moved. The count in a command's own header is known only at
the end: the header is written right-aligned into headroom before the first item.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.list cimport PyList_AsTuple, PyList_Check, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.string cimport memcpy, memmove

from redis_fastbatch._core.runtime.free_threading cimport FREE_THREADED
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.expiry cimport ItemExpiry
from redis_fastbatch._core.resp.framing cimport MAX_BULK, append_bulk, digits, put_header
from redis_fastbatch._core.resp.slots cimport slot_of
from redis_fastbatch._core.runtime.decimals cimport put_decimal_int
from redis_fastbatch._core.runtime.utf8 cimport PyUnicode_DATA, PyUnicode_GET_LENGTH, PyUnicode_IS_COMPACT_ASCII

from collections.abc import Mapping

from redis_fastbatch._core.runtime.place import placed
from redis_fastbatch._messages import not_a_pair
from redis_fastbatch.errors import EncodeError, FastBatchError

cdef Py_ssize_t MAX_CAPACITY_KEPT = 1024 * 1024
cdef bytes ASCII_BYTES = bytes(range(128))
cdef str ASCII = ASCII_BYTES.decode("ascii")


cdef extern from "Python.h":
    Py_ssize_t PyDict_GET_SIZE(dict mapping)
    PyObject* PyIter_Next(object iterator) except? NULL


cdef bytes bulk(bytes argument):
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


cdef bytes key_bytes(object key, str encoding, str errors):
    """Return the bytes of a key of any type."""
    if isinstance(key, str):
        try:
            return key.encode(encoding, errors)
        except UnicodeEncodeError as error:
            raise EncodeError(f"the key cannot be encoded: {error}") from error
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    # The number itself: the repr() of an IntEnum's member is "<Color.RED: 1>".
    if isinstance(key, int) and not isinstance(key, bool):
        try:
            return int.__repr__(key).encode()
        except ValueError as error:
            raise EncodeError(f"the key is an int of {int.bit_length(key)} bits: {error}") from error
    # redis-py also takes floats. They are refused: 1.0 and 1 are one key of a dict, but two keys of the server.
    raise EncodeError(f"a key must be str, bytes or int, found {type(key).__name__}; convert it, such as by str()")


cdef class Command:
    """A command that carries items.

    Args:
        name: the command, such as b"MSET".
        many: one command carries many items. Otherwise each item is a command.
        counted: the number of items goes before them, as in MSETEX.
        with_values: an item is a key and a value. Otherwise it is a key alone.
        tail: arguments after the item or items, such as (b"EX", b"60").
        expiry: the expiry of each item, which is a part of the item then; None for none.

    Attributes:
        usual_reply: the reply to a command that writes when all its items were written.
    """

    def __init__(
        self,
        bytes name,
        *,
        bint many,
        bint counted=False,
        bint with_values=True,
        tuple tail=(),
        ItemExpiry expiry=None,
    ):
        self.name = name
        self.bulk_name = bulk(name)
        self.many = many
        self.counted = counted
        self.with_values = with_values
        self.tail = tail
        self.suffix_arguments = len(tail)
        self.bulk_tail = b""
        for argument in tail:
            self.bulk_tail += bulk(argument)
        # Where items have expiries of their own, the tail is a part of each item.
        self.suffix = self.bulk_tail if expiry is None else b""
        self.expiry = expiry
        if expiry is not None:
            self.before_time = PyBytes_AS_STRING(expiry.bulk_unit)
            self.before_time_size = PyBytes_GET_SIZE(expiry.bulk_unit)
            self.after_time = PyBytes_AS_STRING(self.bulk_tail)
            self.after_time_size = PyBytes_GET_SIZE(self.bulk_tail)
        if many:
            self.prefix = b""
        else:
            arguments = 2 + with_values + len(tail) + (0 if expiry is None else 2)
            self.prefix = b"*%d\r\n" % arguments + self.bulk_name
        self.headroom = 96 + len(name)
        self.usual_reply = b":1\r\n" if name == b"MSETEX" else b"+OK\r\n"

    def __repr__(self):
        return f"<Command {self.name.decode()}{' many' if self.many else ''}>"


cdef class Chunk(OutputBuffer):
    """Whole commands in one buffer, with the keys and values that they carry."""

    def __init__(self, Command command):
        self.restart(command)

    def restart(self, Command command):
        """Empty the chunk for new items, and keep its memory."""
        self.command = command
        self.item_keys = []
        self.item_values = []
        self.items = 0
        self.sealed = False
        self.reset(0)
        self.shrink(MAX_CAPACITY_KEPT)
        reserve(self, command.headroom)
        self.reset(command.headroom)
        if self.value_width == 0:
            self.value_width = 2

    @property
    def count(self):
        """The number of items in the chunk."""
        return self.items

    @property
    def keys(self):
        """The keys of the items, as the caller gave them."""
        return self.item_keys

    @property
    def values(self):
        """The values of the items. Empty for a command without values."""
        return self.item_values

    @property
    def replies(self):
        """The number of replies that the server sends for the chunk."""
        return 1 if self.command.many else self.items

    cdef int put_bulk(self, const char* data, Py_ssize_t size) except -1:
        if size > MAX_BULK:
            raise EncodeError(f"a key or value of {size} bytes is too long: Redis takes at most {MAX_BULK}")
        return append_bulk(self, data, size)

    cdef int put_key(self, object key, str encoding, str errors) except -1:
        if PyUnicode_CheckExact(key) and PyUnicode_IS_COMPACT_ASCII(key):
            return self.put_bulk(<const char*>PyUnicode_DATA(key), PyUnicode_GET_LENGTH(key))
        if PyBytes_CheckExact(key):
            return self.put_bulk(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        cdef bytes encoded = key_bytes(key, encoding, errors)
        return self.put_bulk(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))

    cdef int put_value(self, object value, ValueCodec codec) except -1:
        cdef Py_ssize_t header = self.end
        cdef Py_ssize_t width = self.value_width
        cdef Py_ssize_t body, size, actual
        reserve(self, width + 3)
        body = header + width + 3
        self.end = body
        codec.encode(value, self)
        size = self.end - body
        if size > MAX_BULK:
            raise EncodeError(f"the value takes {size} bytes: Redis takes at most {MAX_BULK}")
        actual = digits(size)
        reserve(self, 32)
        if actual != width:
            memmove(self.data + header + actual + 3, self.data + body, size)
            self.end += actual - width
            self.value_width = actual
        put_header(self.data + header, c'$', size, actual)
        self.data[self.end] = c'\r'
        self.data[self.end + 1] = c'\n'
        self.end += 2
        return 0

    cdef int put_item(self, object key, object value, ValueCodec codec, str encoding, str errors) except -1:
        cdef Command command = self.command
        if not command.many:
            self.append(PyBytes_AS_STRING(command.prefix), PyBytes_GET_SIZE(command.prefix))
        self.put_key(key, encoding, errors)
        if command.with_values:
            self.put_value(value, codec)
        if not command.many:
            self.append(PyBytes_AS_STRING(command.suffix), PyBytes_GET_SIZE(command.suffix))
        return 0

    cdef int put_time(self, int64_t number) except -1 nogil:
        """Complete the item that was put last with its own expiry."""
        cdef char[20] text
        cdef char* stop = put_decimal_int(text, number, False)
        self.append(self.command.before_time, self.command.before_time_size)
        append_bulk(self, text, stop - text)
        return self.append(self.command.after_time, self.command.after_time_size)

    cdef int take_back(self, Py_ssize_t mark) except -1:
        """Remove the bytes of an item that could not be encoded, and free the memory that only it needed."""
        self.end = mark
        del self.item_keys[self.items:]
        del self.item_values[self.items:]
        if self.times is not None:
            self.times.size = self.items
        return self.shrink(MAX_CAPACITY_KEPT)

    def seal(self):
        """Complete the commands, so that the chunk can be sent."""
        cdef Command command = self.command
        if self.sealed:
            return
        if command.many:
            # It can fail, so it comes first: then nothing is left half done.
            self.append(PyBytes_AS_STRING(command.suffix), PyBytes_GET_SIZE(command.suffix))
            self.put_command_header()
        self.sealed = True

    cdef void put_command_header(self) noexcept:
        """Write the header of a command of many items right-aligned into the headroom."""
        cdef Command command = self.command
        cdef Py_ssize_t count = self.items
        cdef Py_ssize_t arguments = (
            1 + command.counted + count * (1 + command.with_values) + command.suffix_arguments
        )
        cdef Py_ssize_t width = digits(arguments)
        cdef Py_ssize_t count_width = digits(count)
        cdef Py_ssize_t size = width + 3 + PyBytes_GET_SIZE(command.bulk_name)
        cdef char* p
        if command.counted:
            size += digits(count_width) + 3 + count_width + 2
        self.start -= size
        p = put_header(self.data + self.start, c'*', arguments, width)
        memcpy(p, PyBytes_AS_STRING(command.bulk_name), PyBytes_GET_SIZE(command.bulk_name))
        p += PyBytes_GET_SIZE(command.bulk_name)
        if command.counted:
            p = put_header(p, c'$', count_width, digits(count_width))
            # The number ends as a header does, and begins without a mark.
            put_header(p - 1, c'\n', count, count_width)

    def extract(self, Command command, positions=None):
        """Return the items at `positions` (all by default) in a sealed chunk of another command.

        The values are not serialized again: their bytes are copied.
        """
        cdef Chunk other = self.blank(command)
        cdef const char* p = self.data + self.command.headroom
        cdef Place place
        cdef Py_ssize_t i
        wanted = None if positions is None else set(positions)
        for i in range(self.items):
            p = self.next_item(p, &place)
            if wanted is None or i in wanted:
                other.add(&place, self, i)
        other.seal()
        return other

    cdef const char* next_item(self, const char* p, Place* place) noexcept:
        """Find the item at `p`, in a sealed chunk. Return where the next one begins."""
        if not self.command.many:
            p += PyBytes_GET_SIZE(self.command.prefix)
        place.data = p
        p = after_bulk(p)
        place.key = place.data
        while place.key[0] != c'\n':
            place.key += 1
        place.key += 1
        place.key_size = p - 2 - place.key
        if self.command.with_values:
            p = after_bulk(p)
        if self.command.expiry is not None:
            for _ in range(2 + self.command.suffix_arguments):
                p = after_bulk(p)
        place.size = p - place.data
        if not self.command.many:
            p += PyBytes_GET_SIZE(self.command.suffix)
        return p

    cdef int slot(self, Place* place, Py_ssize_t i) noexcept:
        """Return the cluster's slot of item i, which is at `place`."""
        return slot_of(place.key, place.key_size)

    cdef int add(self, Place* place, Chunk other, Py_ssize_t i) except -1:
        """Append item i of `other`, which is at `place`."""
        cdef Command command = self.command
        if not command.many:
            self.append(PyBytes_AS_STRING(command.prefix), PyBytes_GET_SIZE(command.prefix))
        self.append(place.data, place.size)
        if not command.many:
            self.append(PyBytes_AS_STRING(command.suffix), PyBytes_GET_SIZE(command.suffix))
        return self.adopt(other, i)

    cdef Chunk blank(self, Command command):
        """Return an empty chunk of the same kind."""
        return Chunk(command)

    cdef int adopt(self, Chunk other, Py_ssize_t i) except -1:
        """Count item i of `other` as an item of this chunk. Its bytes were appended already."""
        self.item_keys.append(other.item_keys[i])
        if other.item_values:
            self.item_values.append(other.item_values[i])
        if self.times is not None:
            self.times.add(other.times.numbers[i])
        self.items += 1
        return 0


cdef const char* after_bulk(const char* p) noexcept:
    """Return the place after a bulk string that this module wrote."""
    cdef Py_ssize_t size = 0
    p += 1
    while p[0] != c'\r':
        size = size * 10 + (p[0] - c'0')
        p += 1
    return p + 2 + size + 2


IN_MEMORY = frozenset(
    [dict, list, tuple, set, frozenset, range, type({}.items()), type({}.keys()), type({}.values())]
)
"""Types of items that are all there: taking the next one never waits, and runs no code of the caller's."""


class SourcePending(Exception):
    """Raised by an iterable of items that has no item ready, but may have one later."""


cdef class ItemSource:
    """Items from a mapping or an iterable of pairs, or keys from an iterable."""

    def __init__(self, items, bint pairs=True):
        self.pairs = pairs
        if pairs and PyDict_CheckExact(items):
            self.mapping = items
            self.size = PyDict_GET_SIZE(items)
        elif pairs and isinstance(items, Mapping):
            self.iterator = iter(items.items())
        elif isinstance(items, (str, bytes, bytearray)):
            raise TypeError(f"expected an iterable of items or keys, got one {type(items).__name__}: {items!r:.100}")
        else:
            self.iterator = iter(items)

    cdef bint advance(self) except -1:
        """Put the next item into `key` and `value`. Return False at the end."""
        cdef PyObject* next_item
        if self.mapping is not None:
            return self.advance_locked(self.mapping) if FREE_THREADED else self.advance_mapping()
        if self.iterator is None:
            return False
        next_item = PyIter_Next(self.iterator)
        if next_item == NULL:
            self.iterator = None
            return False
        item = <object>next_item
        Py_DECREF(item)
        if self.pairs:
            self.unpack(item)
        else:
            self.key = item
        return True

    cdef bint advance_locked(self, dict mapping) except -1:
        """Take the next item while no other thread changes the dict."""
        with cython.critical_section(mapping):
            return self.advance_mapping()

    cdef bint advance_mapping(self) except -1:
        cdef PyObject* key
        cdef PyObject* value
        if PyDict_GET_SIZE(self.mapping) != self.size:
            raise RuntimeError("the dict of items changed size while it was written")
        if not PyDict_Next(self.mapping, &self.position, &key, &value):
            self.mapping = None
            return False
        self.key = <object>key
        self.value = <object>value
        return True

    cdef int unpack(self, object item) except -1:
        if FREE_THREADED and PyList_Check(item):
            item = PyList_AsTuple(item)
        # Other iterables of two are mistakes: a dict of two fields, a set, a string of two characters.
        if PyTuple_Check(item) and PyTuple_GET_SIZE(item) == 2:
            self.key = <object>PyTuple_GET_ITEM(item, 0)
            self.value = <object>PyTuple_GET_ITEM(item, 1)
        elif PyList_Check(item) and PyList_GET_SIZE(item) == 2:
            self.key = <object>PyList_GET_ITEM(item, 0)
            self.value = <object>PyList_GET_ITEM(item, 1)
        else:
            raise TypeError(not_a_pair(item))
        return 0


cdef class BatchWriter:
    """Encodes items into chunks.

    Args:
        items: a mapping or an iterable of (key, value) pairs; of keys, where the command has no values.
        command: carries the items.
        codec: makes bytes of values.
        max_items: the most items that a chunk holds.
        max_bytes: a chunk is full once it holds that many bytes.
        encoding, errors: the encoding of str keys and its error handler.

    Attributes:
        failures: (key, value, exception) for each item that could not be encoded. The caller empties it.
        in_memory: the source never waits: it is a dict, a list or another of Python's own containers.
        exhausted: there are no more items.
        source_error: the exception of the iterable of items, which ended it; None if there was none.
        source_pending: the iterable has no item ready: it has raised SourcePending.
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
        self.source = ItemSource(items, command.with_values)
        self.in_memory = type(items) in IN_MEMORY
        self.command = command
        self.codec = codec
        self.max_items = max_items
        self.max_bytes = max_bytes
        if encoding != "utf-8" and ASCII.encode(encoding, errors) != ASCII_BYTES:
            raise ValueError(f"the encoding of keys must leave ASCII unchanged, as UTF-8 does, got {encoding}")
        self.encoding = encoding
        self.errors = errors
        self.failures = []

    def blank(self):
        """Return an empty chunk for fill()."""
        return Chunk(self.command)

    def use(self, Command command):
        """Use another command for the chunks that follow."""
        self.command = command

    def fill(self, Chunk chunk):
        """Put items into `chunk` until it is full or there are no more, and seal it."""
        chunk.restart(self.command)
        self.fill_some(chunk, self.max_items)
        if not self.source_pending:
            chunk.seal()

    def fill_some(self, Chunk chunk, Py_ssize_t most):
        """Put up to `most` more items into `chunk`. Seal it when it is full or there are no more."""
        cdef Py_ssize_t stop = chunk.items + most
        self.source_pending = False
        while True:
            try:
                self.exhausted = self.run(chunk, stop)
                break
            except SourcePending:
                self.source_pending = True
                return
            except BaseException as error:
                in_item = self.in_item
                self.in_item = False
                if in_item:
                    chunk.take_back(self.mark)
                if not isinstance(error, Exception):
                    raise
                if not in_item:
                    self.source_error = error
                    self.exhausted = True
                    break
                self.failures.append(self.failure(error))
                stop -= 1
        if self.exhausted or chunk.items >= self.max_items or chunk.end >= chunk.start + self.max_bytes:
            chunk.seal()

    cdef bint run(self, Chunk chunk, Py_ssize_t stop) except -1:
        """Return True at the end of the items; False when the chunk is full or holds `stop` items."""
        cdef ItemSource source = self.source
        cdef ItemExpiry expiry = chunk.command.expiry
        cdef Py_ssize_t limit = chunk.start + self.max_bytes
        if stop > self.max_items:
            stop = self.max_items
        while chunk.items < stop and chunk.end < limit:
            if not source.advance():
                return True
            self.mark = chunk.end
            self.in_item = True
            chunk.put_item(source.key, source.value, self.codec, self.encoding, self.errors)
            if expiry is not None:
                chunk.put_time(expiry.of(source.key))
            chunk.item_keys.append(source.key)
            if chunk.command.with_values:
                chunk.item_values.append(source.value)
            chunk.items += 1
            self.in_item = False
        return False

    def failure(self, error):
        """Return an entry of `failures` for the item that raised `error`."""
        return self.source.key, self.source.value, self.explained(error)

    def explained(self, error):
        """Return the exception as an EncodeError that names the key."""
        if not isinstance(error, FastBatchError):
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            explained = EncodeError(reason)
            explained.__cause__ = error
            error = explained
        error = placed(error, self.source.value)
        if getattr(error, "key", None) is None:
            error.key = self.source.key
        return error
