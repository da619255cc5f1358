# cython: language_level=3
"""Reads the replies of a batch, RESP2 and RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec/).

The frequent replies are read here: +OK without an object for each, and bulk strings straight into values. A
parser that the caller provides, such as hiredis, parses all other replies once they have arrived whole. Reading
may stop wherever the received bytes end, and goes on from there.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memchr, memcmp

from redis_fastbatch._core.runtime.buffer cimport ReceiveBuffer
from redis_fastbatch._core.codec cimport ValueCodec

from redis_fastbatch.errors import DecodeError

cdef enum:
    INCOMPLETE = 0
    LONGEST_NUMBER = 19
    MAX_NESTING = 128


cdef Py_ssize_t ALL = 1 << 62
cdef object NOT_ENOUGH = object()


class ErrorReply(Exception):
    """An error the server replied with, such as "OOM command not allowed"; its text is args[0]."""


class ProtocolError(Exception):
    """The received bytes are not the RESP that was expected. Nothing more can be read from the connection."""


cdef extern from *:
    """
    #if !defined(PYPY_VERSION) && PY_VERSION_HEX < 0x030E0000 \\
        && !(defined(_WIN32) && PY_VERSION_HEX >= 0x030D0000)
    PyAPI_FUNC(PyObject *) _PyDict_NewPresized(Py_ssize_t);
    #define FASTBATCH_NEW_DICT(size) _PyDict_NewPresized(size)
    #else
    #define FASTBATCH_NEW_DICT(size) ((void)(size), PyDict_New())
    #endif
    """
    dict FASTBATCH_NEW_DICT(Py_ssize_t size)


def new_dict(Py_ssize_t size):
    """Return an empty dict with room for `size` keys, if this version of Python can make one.

    Its table need not grow while it is filled. Measured: 27 ns a key, without the room 48.
    """
    return FASTBATCH_NEW_DICT(size)


cdef class ValueRun:
    def __init__(self, list keys, Py_ssize_t done, default, out):
        self.keys = keys
        self.count = len(keys)
        self.done = done
        self.default = default
        self.refused = []
        if isinstance(out, dict):
            self.mapping = out
        else:
            self.pairs = out

    def __dealloc__(self):
        self.let_go()

    cdef int put(self, object value) except -1:
        """Take the value of the next key."""
        Py_INCREF(value)
        self.held[self.holding] = <PyObject*>value
        self.holding += 1
        self.done += 1
        return self.hand_over() if self.holding == MOST_HELD else 0

    cdef int hand_over(self) except -1:
        """Put the values that are held under their keys.

        Many at a time: a large dict is in no cache, and the processor fetches several of its entries at the same
        time if nothing is done between them.
        """
        cdef Py_ssize_t first = self.done - self.holding
        cdef Py_ssize_t i
        cdef object key
        for i in range(self.holding):
            key = self.keys[first + i]
            if self.mapping is not None:
                PyDict_SetItem(self.mapping, key, <object>self.held[i])
            else:
                self.pairs.append((key, <object>self.held[i]))
        self.let_go()
        return 0

    cdef void let_go(self) noexcept:
        while self.holding:
            self.holding -= 1
            Py_DECREF(<object>self.held[self.holding])


cdef class ReplyReader(ReceiveBuffer):
    """Received bytes and how far they are read.

    Args:
        max_value_size: a longer bulk string is refused, in bytes; 0 for no limit.
        make_parser: makes a parser with the arguments and methods of hiredis.Reader, when one is needed.
        protocol_error: the class of the exception for bytes that are not the expected RESP.

    Attributes:
        pushes: the RESP3 push messages between the replies, as the parser returns them. The caller empties it.
        elements: how many elements of the array that array() has begun are still to be read.
    """

    def __init__(self, Py_ssize_t max_value_size=0, *, make_parser, protocol_error=ProtocolError):
        self.pushes = []
        self.max_value_size = max_value_size
        self.make_parser = make_parser
        self.protocol_error = protocol_error

    cdef Py_ssize_t broken(self, str reason) except -2:
        raise self.protocol_error(f"Protocol Error: {reason}")

    cdef Py_ssize_t line_end(self, Py_ssize_t start) noexcept:
        """Return where the line's CRLF is; INCOMPLETE if it has not arrived."""
        cdef const char* found
        cdef Py_ssize_t at = start
        while at + 1 < self.end:
            found = <const char*>memchr(self.data + at, c'\r', self.end - 1 - at)
            if found == NULL:
                return INCOMPLETE
            if found[1] == c'\n':
                return found - self.data
            at = found - self.data + 1
        return INCOMPLETE

    cdef Py_ssize_t integer(self, Py_ssize_t start, Py_ssize_t stop) except? -2:
        cdef Py_ssize_t number = 0
        cdef bint negative = start < stop and self.data[start] == c'-'
        cdef Py_ssize_t i
        if negative:
            start += 1
        if not 0 < stop - start < LONGEST_NUMBER:
            return self.broken(f"a number of {stop - start} digits")
        for i in range(start, stop):
            if not c'0' <= self.data[i] <= c'9':
                return self.broken(f"byte {self.data[i] & 0xFF:#04x} in a number")
            number = number * 10 + (self.data[i] - c'0')
        return -number if negative else number

    cdef object parse(self, Py_ssize_t stop):
        """Return the reply that ends at `stop`, as the parser returns it."""
        if self.data[self.position] == c'=':
            return self.verbatim(stop)
        if self.parser is None:
            self.parser = self.make_parser(
                protocolError=self.protocol_error, replyError=ErrorReply, notEnoughData=NOT_ENOUGH
            )
        self.parser.feed(PyBytes_FromStringAndSize(self.data + self.position, stop - self.position))
        try:
            reply = self.parser.gets()
        except TypeError as error:
            # A map or set with elements that cannot be hashed.
            self.broken(str(error))
        if reply is NOT_ENOUGH or self.parser.has_data():
            self.broken("a reply without a clear end")
        self.position = stop
        return reply

    cdef object verbatim(self, Py_ssize_t stop):
        """Return the text of a verbatim string. Not with hiredis 3.5, which reads four bytes beyond it."""
        cdef Py_ssize_t start = self.line_end(self.position) + 2
        if stop - start < 6 or self.data[start + 3] != c':':
            self.broken("a verbatim string without its format")
        if self.data[stop - 2] != c'\r' or self.data[stop - 1] != c'\n':
            self.broken("a verbatim string that does not end where its length says")
        self.position = stop
        return PyBytes_FromStringAndSize(self.data + start + 4, stop - start - 6)

    cdef bint skip_pushes(self) except -1:
        """Keep push messages for later, and drop attributes. Return False if no reply has begun to arrive
        after them."""
        cdef Py_ssize_t stop
        while self.position < self.end and self.data[self.position] in b">|":
            stop = reply_end(self, self.position, 0)
            if stop == INCOMPLETE:
                return False
            if self.data[self.position] == c'>':
                self.pushes.append(self.parse(stop))
            else:
                self.position = stop
        return self.position < self.end

    def finished(self):
        """Return whether everything is read; False while only a part of a push message has arrived.

        Call it when no reply is outstanding.

        Raises:
            ProtocolError: there is a reply that was not asked for. So the replies before it may have been taken
                for the replies to other commands.
        """
        if self.skip_pushes():
            self.broken(f"a reply that was not asked for begins with byte {self.data[self.position] & 0xFF:#04x}")
        return self.position == self.end

    def reply(self):
        """Return a whole reply of any kind in a tuple; None if it has not arrived whole.

        An error reply is returned as an ErrorReply.

        Raises:
            ProtocolError: the bytes are not RESP.
        """
        cdef Py_ssize_t stop
        if not self.skip_pushes():
            return None
        stop = reply_end(self, self.position, 0)
        return None if stop == INCOMPLETE else (self.parse(stop),)

    cdef bint is_quiet(self, Py_ssize_t stop, bint queued) noexcept:
        cdef Py_ssize_t size = stop - self.position
        if size == 9 and queued:
            return memcmp(self.data + self.position, b"+QUEUED\r\n", 9) == 0
        return size == 5 and memcmp(self.data + self.position, b"+OK\r\n", 5) == 0

    def statuses(self, Py_ssize_t limit, Py_ssize_t first, list non_ok_replies, bint queued=True):
        """Read up to `limit` replies, and return how many had arrived.

        +OK and, if `queued`, +QUEUED are only counted. Every other reply is appended to `non_ok_replies` as
        (first + its index, reply).
        """
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t stop
        while done < limit:
            if self.end - self.position >= 5 and memcmp(self.data + self.position, b"+OK\r\n", 5) == 0:
                self.position += 5
                done += 1
                continue
            if not self.skip_pushes():
                break
            stop = reply_end(self, self.position, 0)
            if stop == INCOMPLETE:
                break
            if self.is_quiet(stop, queued):
                self.position = stop
            else:
                non_ok_replies.append((first + done, self.parse(stop)))
            done += 1
        return done

    def array(self, Py_ssize_t expected):
        """Begin to read an array of `expected` elements, which values() reads.

        Returns:
            True if it has begun, False if its header has not arrived, an ErrorReply if the server has refused the
            command.

        Raises:
            ProtocolError: another kind of reply, or an array of another length.
        """
        cdef Py_ssize_t stop
        cdef Py_ssize_t count
        if not self.skip_pushes():
            return False
        if self.data[self.position] != c'*':
            whole = self.reply()
            if whole is None:
                return False
            if isinstance(whole[0], ErrorReply):
                return whole[0]
            self.broken(f"an array was expected, got {whole[0]!r:.80}")
        stop = self.line_end(self.position)
        if stop == INCOMPLETE:
            return False
        count = self.integer(self.position + 1, stop)
        if count != expected:
            self.broken(f"an array of {expected} was expected, got one of {count}")
        self.position = stop + 2
        self.elements = count
        return True

    def values(
        self, list keys, Py_ssize_t done, ValueCodec codec, object default, out, list failures, Py_ssize_t most=ALL
    ):
        """Read bulk strings as the values of `keys`, from key number `done` on.

        Each value goes into `out`: into a dict under its key, to the end of a list as (key, value). For a null, an
        error reply to a key of the wrong type, and bytes that cannot be decoded, it is `default`.

        Args:
            failures: gets (key, bytes or None, exception) for each value that cannot be read.
            most: the most values to read.

        Returns:
            How many of `keys` are done now.

        Raises:
            DecodeError: a value is longer than max_value_size. The rest of it cannot be skipped, so the
                connection cannot be used any longer.
            ProtocolError: the bytes are not RESP.
        """
        cdef ValueRun run = ValueRun(keys, done, default, out)
        if run.count - done > most:
            run.count = done + most
        while True:
            try:
                try:
                    self.run_values(run, codec)
                finally:
                    run.hand_over()
                for key, error in run.refused:
                    failures.append((key, None, error))
                return run.done
            except DecodeError as error:
                if not run.undecodable:
                    raise
                error.key = run.keys[run.done]
                data = PyBytes_FromStringAndSize(self.data + self.position, run.undecodable - 2 - self.position)
                failures.append((error.key, data[data.index(b"\n") + 1:], error))
                self.position = run.undecodable
                run.undecodable = 0
                run.put(default)
                self.elements -= self.elements > 0

    cdef int run_values(self, ValueRun run, ValueCodec codec) except -1:
        """Reads values until they or the received bytes end."""
        cdef Py_ssize_t start, size
        while run.done < run.count and self.position < self.end:
            if self.data[self.position] == c'$':
                start = self.bulk_start(&size)
                if start == INCOMPLETE:
                    return 0
                if size < 0:
                    if size != -1:
                        self.broken(f"a bulk string of {size} bytes")
                    run.put(run.default)
                    self.position = start
                else:
                    if self.max_value_size and size > self.max_value_size:
                        raise DecodeError(f"a value of {size} bytes: max_value_size is {self.max_value_size}",
                                          0, run.keys[run.done])
                    if self.end - start - 2 < size:
                        return 0
                    if self.data[start + size] != c'\r' or self.data[start + size + 1] != c'\n':
                        self.broken("a bulk string that does not end where its length says")
                    run.undecodable = start + size + 2
                    value = codec.decode(self.data + start, size)
                    run.undecodable = 0
                    run.put(value)
                    self.position = start + size + 2
            elif self.end - self.position >= 3 and memcmp(self.data + self.position, b"_\r\n", 3) == 0:
                run.put(run.default)
                self.position += 3
            elif self.data[self.position] in b">|" and not self.elements:
                if not self.skip_pushes():
                    return 0
                continue
            elif not self.other_value(run):
                return 0
            if self.elements:
                self.elements -= 1
        return 0

    cdef bint other_value(self, ValueRun run) except -1:
        """Read a reply that is neither a bulk string nor null. Return False if it has not arrived whole."""
        cdef bint is_array
        if not self.skip_pushes():
            return False
        is_array = self.data[self.position] == c'*'
        whole = self.reply()
        if whole is None:
            return False
        if isinstance(whole[0], ErrorReply):
            if not str(whole[0]).startswith("WRONGTYPE"):
                run.refused.append((run.keys[run.done], whole[0]))
        elif whole[0] is not None or is_array:
            self.broken(f"a bulk string was expected, got {whole[0]!r:.80}")
        run.put(run.default)
        return True

    cdef Py_ssize_t bulk_start(self, Py_ssize_t* size) except -2:
        """Return where the bytes of the bulk string at `position` begin; INCOMPLETE without a whole header."""
        cdef Py_ssize_t at = self.position + 1
        cdef Py_ssize_t number = 0
        while at < self.end and c'0' <= self.data[at] <= c'9' and at - self.position < LONGEST_NUMBER:
            number = number * 10 + (self.data[at] - c'0')
            at += 1
        if self.end - at >= 2 and self.data[at] == c'\r' and self.data[at + 1] == c'\n' and at > self.position + 1:
            size[0] = number
            return at + 2
        at = self.line_end(self.position)
        if at == INCOMPLETE:
            if self.end - self.position > LONGEST_NUMBER + 3:
                self.broken("a bulk string's header without an end")
            return INCOMPLETE
        size[0] = self.integer(self.position + 1, at)
        return at + 2


cdef Py_ssize_t reply_end(ReplyReader reader, Py_ssize_t start, int depth) except -2:
    """Return where the reply at `start` ends; INCOMPLETE if it has not arrived whole."""
    cdef char kind
    cdef Py_ssize_t stop, count, i
    if depth > MAX_NESTING:
        return reader.broken(f"replies nested more than {MAX_NESTING} levels deep")
    if start >= reader.end:
        return INCOMPLETE
    kind = reader.data[start]
    if kind not in b"+-:_,#($=!*~>%|":
        return reader.broken(f"byte {kind & 0xFF:#04x} begins no reply")
    if depth and kind in b">|=":
        return reader.broken(f"{chr(kind)} inside a reply")
    stop = reader.line_end(start)
    if stop == INCOMPLETE:
        return INCOMPLETE
    if kind in b"+-:_,#(":
        return stop + 2
    if kind in b"$=!":
        count = reader.integer(start + 1, stop)
        if count < 0:
            return stop + 2
        return stop + 4 + count if reader.end - stop - 4 >= count else INCOMPLETE
    count = reader.integer(start + 1, stop)
    if kind == c'%' or kind == c'|':
        count *= 2
    stop += 2
    for i in range(count):
        stop = reply_end(reader, stop, depth + 1)
        if stop == INCOMPLETE:
            return INCOMPLETE
    return stop
