# cython: language_level=3
"""Encodes any command, given as a tuple or list of its name and arguments, as redis-py packs it.

A name with spaces, such as "CONFIG SET", is sent as several words. Names repeat, so what is sent for a name is
kept.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Check
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.string cimport memcpy

from redis_fastbatch._core.resp.arguments cimport append_argument
from redis_fastbatch._core.resp.framing cimport MAX_BULK, append_bulk, digits, put_header
from redis_fastbatch._core.resp.slots cimport slot_of
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.runtime.utf8 cimport PyUnicode_DATA, PyUnicode_GET_LENGTH, PyUnicode_IS_COMPACT_ASCII

import codecs

from redis_fastbatch._messages import format_key
from redis_fastbatch.errors import EncodeError

cdef bytes ASCII_BYTES = bytes(range(128))
cdef str ASCII = ASCII_BYTES.decode("ascii")

cdef enum:
    MOST_NAMES = 1000       # names that are kept; a stream of random ones must not fill the memory
    LONGEST_NUMBER = 32


cdef tuple as_command(object given):
    """Return a command as a tuple, which other threads cannot change.

    Raises:
        EncodeError: it is not a tuple or a list, or it is empty.
    """
    cdef tuple command
    if PyTuple_Check(given) or PyList_Check(given):
        command = tuple(given)
    else:
        raise EncodeError(
            f"a command must be a tuple or list of its name and arguments, found {type(given).__name__} "
            f"{format_key(given):.100}"
        )
    if not command:
        raise EncodeError("a command must have a name, found an empty one")
    return command


cdef class CommandRule:
    """What is known of a command by its name: whether it is refused, and which of its words are keys.

    The words of a command are its name and its arguments as they are sent. The name's first word is number 0.

    Args:
        first, last: the numbers of its first and its last key; `last` is negative where it counts from the end,
            as -1 for the last word. No keys are there if `first` is 0.
        step: from one key to the next.
        counted: the number of the word that says how many keys follow it; 0 for none.
        after: the word, in upper case, after which the first half of the others are keys, as STREAMS of XREAD.
        refusal: why the command is not sent; None if it is.
        refusals: why the command is not sent, by its second word in upper case.
    """

    def __init__(
        self,
        Py_ssize_t first=1,
        Py_ssize_t last=1,
        Py_ssize_t step=1,
        *,
        Py_ssize_t counted=0,
        bytes after=None,
        str refusal=None,
        dict refusals=None,
    ):
        self.first = first
        self.last = last
        self.step = step
        self.counted = counted
        self.after = after
        self.refusal = refusal
        self.refusals = refusals

    @property
    def has_keys(self):
        """Whether the command has keys."""
        return bool(self.first or self.counted or self.after is not None)


cdef class CommandName:
    """The name of a command.

    Args:
        words: the words that are sent for it, such as (b"CONFIG", b"SET").
        rule: what is known of the command; None for nothing.
    """

    def __init__(self, tuple words, CommandRule rule=None):
        self.words = words
        self.rule = rule
        self.count = len(words)
        cdef OutputBuffer bulks = OutputBuffer()
        for word in words:
            append_bulk(bulks, PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word))
        self.bulks = PyBytes_FromStringAndSize(bulks.data, bulks.end)


cdef class CommandEncoder:
    """Encodes commands as redis-py packs them.

    Arguments are str, bytes, bytearray, memoryview, int and float. Numbers are written as repr() writes an int or
    a float, also those of subclasses, such as the members of an IntEnum and numpy.float64.

    Args:
        encoding, errors: the encoding of str arguments and its error handler. Names are UTF-8, as in redis-py.
        rules: the rules of commands, by the first word of their name in upper case; None for none.
    """

    def __init__(self, str encoding="utf-8", str errors="strict", dict rules=None):
        self.rules = rules
        self.encoding = encoding
        self.errors = errors
        self.is_utf8 = errors == "strict" and codecs.lookup(encoding).name == "utf-8"
        self.keeps_ascii = self.is_utf8 or ASCII.encode(encoding, errors) == ASCII_BYTES
        self.texts = {}
        self.raw = {}

    def append(self, OutputBuffer out, command):
        """Append a command to a buffer. If it cannot be encoded, the buffer stays as it was.

        Args:
            out: the buffer.
            command: a tuple or list of its name and arguments.

        Raises:
            EncodeError: an argument has another type, or cannot be encoded. The message names the argument by its
                index in the command.
        """
        cdef Py_ssize_t mark = out.end
        try:
            self.put(out, as_command(command))
        except BaseException:
            out.end = mark
            raise

    def pack(self, *command):
        """Return a command as bytes. Raise what append() raises."""
        cdef OutputBuffer out = OutputBuffer()
        self.put(out, as_command(command))
        return bytes(memoryview(out))

    def name(self, given):
        """Return the name of a command. Raise EncodeError if it is none."""
        return self.name_of(given)

    def argument(self, argument, Py_ssize_t index):
        """Return the bytes of an argument. Raise EncodeError, which names it by its index."""
        cdef OutputBuffer out = OutputBuffer()
        cdef Word word
        self.put_argument(out, argument, index)
        next_word(out.data, &word)
        return PyBytes_FromStringAndSize(word.data, word.size)

    cdef CommandName name_of(self, object given):
        cdef dict known
        cdef object name
        if given is self.last_given:
            return self.last_name
        if PyUnicode_CheckExact(given):
            known = self.texts
        elif PyBytes_CheckExact(given):
            # Not in one dict with the others: a str and bytes of the same text have the same hash.
            known = self.raw
        else:
            return self.new_name(given)
        name = known.get(given)
        if name is None:
            name = self.new_name(given)
            if len(known) >= MOST_NAMES:
                known.clear()
            known[given] = name
        self.last_given = given
        self.last_name = name
        return name

    cdef CommandName new_name(self, object given):
        cdef bytes data
        if isinstance(given, str):
            try:
                words = given.encode().split()
            except UnicodeEncodeError as error:
                raise EncodeError(f"the name of the command cannot be encoded: {error}") from error
        elif isinstance(given, (bytes, bytearray, memoryview)):
            data = bytes(given)
            words = data.split() if b" " in data else [data]
        else:
            raise EncodeError(
                f"the name of a command must be str or bytes, found {type(given).__name__} {format_key(given):.100}"
            )
        if not words or not words[0]:
            raise EncodeError(f"a command must have a name, found {format_key(given):.100}")
        return CommandName(tuple(words), None if self.rules is None else self.rules.get(words[0].upper()))

    cdef int refuse(self, CommandName name, tuple command) except -1:
        """Raise EncodeError if the command's rule refuses it."""
        cdef CommandRule rule = name.rule
        cdef str refusal = rule.refusal
        if rule.refusals is not None:
            word = None
            if name.count > 1:
                word = name.words[1]
            elif len(command) > 1:
                word = command[1]
            if isinstance(word, str):
                word = word.encode("utf-8", "replace")
            if isinstance(word, (bytes, bytearray, memoryview)):
                refusal = rule.refusals.get(bytes(word).upper(), refusal)
        if refusal is not None:
            raise EncodeError(refusal)
        return 0

    cdef int put(self, OutputBuffer out, tuple command) except -1:
        """Append a command. If it raises, the caller has to take its bytes back."""
        cdef CommandName name = self.name_of(<object>PyTuple_GET_ITEM(command, 0))
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name.bulks)
        cdef Py_ssize_t count = PyTuple_GET_SIZE(command)
        cdef Py_ssize_t words = count - 1 + name.count
        cdef Py_ssize_t i
        cdef char* p
        if name.rule is not None:
            self.refuse(name, command)
        reserve(out, size + LONGEST_NUMBER)
        p = put_header(out.data + out.end, c'*', words, digits(words))
        memcpy(p, PyBytes_AS_STRING(name.bulks), size)
        out.end = p + size - out.data
        for i in range(1, count):
            self.put_argument(out, <object>PyTuple_GET_ITEM(command, i), i)
        return 0

    cdef int put_argument(self, OutputBuffer out, object argument, Py_ssize_t index) except -1:
        if (self.is_utf8 or not PyUnicode_CheckExact(argument)) and append_argument(out, argument):
            return 0
        if PyUnicode_CheckExact(argument):
            return self.put_text(out, argument, index)
        return self.put_other(out, argument, index)

    cdef int put_text(self, OutputBuffer out, str text, Py_ssize_t index) except -1:
        """Append text in the encoding of the client."""
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
        cdef bytes encoded
        if PyUnicode_IS_COMPACT_ASCII(text) and self.keeps_ascii and length <= MAX_BULK:
            return append_bulk(out, <const char*>PyUnicode_DATA(text), length)
        try:
            encoded = text.encode(self.encoding, self.errors)
        except UnicodeEncodeError as error:
            raise EncodeError(f"argument {index} cannot be encoded: {error}") from error
        if PyBytes_GET_SIZE(encoded) > MAX_BULK:
            refuse_size(PyBytes_GET_SIZE(encoded), index)
        return append_bulk(out, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))

    cdef int put_other(self, OutputBuffer out, object argument, Py_ssize_t index) except -1:
        """Append an argument of a rare type: a large int, a bytes-like object, or an instance of a subclass."""
        cdef bytes data
        if isinstance(argument, str):
            return self.put_text(out, str.__str__(argument), index)
        if isinstance(argument, (bytes, bytearray, memoryview)):
            data = bytes(argument)
        elif isinstance(argument, (int, float)) and not isinstance(argument, bool):
            # The number itself: the repr() of an IntEnum's member is "<Color.RED: 1>".
            try:
                data = (float if isinstance(argument, float) else int).__repr__(argument).encode()
            except ValueError as error:
                raise EncodeError(f"argument {index} is an int of {int.bit_length(argument)} bits: {error}") from error
        else:
            raise EncodeError(
                f"argument {index} must be str, bytes, int or float, found {type(argument).__name__} "
                f"{format_key(argument):.100}; convert it, such as by str()"
            )
        if PyBytes_GET_SIZE(data) > MAX_BULK:
            refuse_size(PyBytes_GET_SIZE(data), index)
        return append_bulk(out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef int refuse_size(Py_ssize_t size, Py_ssize_t index) except -1:
    raise EncodeError(f"argument {index} takes {size} bytes: Redis takes at most {MAX_BULK}")


cdef const char* next_word(const char* p, Word* word) noexcept nogil:
    """Find the bulk string at `p`, which this module wrote. Return where it ends."""
    word.size = 0
    p += 1
    while p[0] != c'\r':
        word.size = word.size * 10 + (p[0] - c'0')
        p += 1
    word.data = p + 2
    return word.data + word.size + 2


cdef const char* first_word(const char* p, Py_ssize_t* count) noexcept nogil:
    """Return where the first word of the command at `p` begins, which this module wrote."""
    count[0] = 0
    p += 1
    while p[0] != c'\r':
        count[0] = count[0] * 10 + (p[0] - c'0')
        p += 1
    return p + 2


cdef const char* after_command(const char* p) noexcept nogil:
    """Return where the command at `p` ends, which this module wrote."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    cdef Word word
    p = first_word(p, &count)
    for i in range(count):
        p = next_word(p, &word)
    return p


cdef int slot_of_command(const char* p, CommandName name) except -1:
    """Return the cluster's slot of the command at `p`, which this module wrote.

    Raises:
        EncodeError: it has no key, or keys of several slots.
    """
    cdef CommandRule rule = name.rule
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    cdef Word word
    word.data = NULL
    word.size = 0
    p = first_word(p, &count)
    if rule is None:
        # The first argument is the key of most commands.
        if count <= name.count:
            refuse_keyless(name)
        for i in range(name.count + 1):
            p = next_word(p, &word)
        return slot_of(word.data, word.size)
    words = []
    for i in range(count):
        p = next_word(p, &word)
        words.append(PyBytes_FromStringAndSize(word.data, word.size))
    slots = {slot_of(<bytes>key, len(key)): key for key in keys_of(words, rule)}
    if not slots:
        refuse_keyless(name)
    if len(slots) > 1:
        (one, some), (other, more) = list(slots.items())[:2]
        raise EncodeError(
            f"{name.words[0].decode('utf-8', 'replace')} has keys of several slots, which no node of a cluster carries out: "
            f"{format_key(some)} is in slot {one}, {format_key(more)} in {other}; keys with a common {{tag}} share one"
        )
    return next(iter(slots))


cdef list keys_of(list words, CommandRule rule):
    """Return the keys among the words of a command."""
    cdef Py_ssize_t count = len(words)
    cdef Py_ssize_t last
    cdef list keys = []
    if rule.first:
        last = rule.last if rule.last >= 0 else count + rule.last
        keys += words[rule.first:min(last, count - 1) + 1:rule.step]
    if rule.counted and rule.counted < count and words[rule.counted].isdigit():
        # Not more digits than an int takes: the server refuses such a command anyway.
        keys += words[rule.counted + 1:rule.counted + 1 + min(int(words[rule.counted][:9]), count)]
    if rule.after is not None:
        for i, word in enumerate(words):
            if word.upper() == rule.after:
                rest = words[i + 1:]
                keys += rest[:len(rest) // 2]
                break
    return keys


cdef int refuse_keyless(CommandName name) except -1:
    shown = b" ".join(name.words).decode("utf-8", "replace")
    raise EncodeError(
        f"{shown} has no key, which says to which node of the cluster it goes: "
        "send it with execute_command() of the client, which takes target_nodes"
    )
