# cython: language_level=3
"""Reads the replies of a batch, RESP2 and RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec/).

The frequent replies are read here: +OK without an object for each, and bulk strings straight into values. A
parser that the caller provides, such as hiredis, parses all other replies once they have arrived whole. Reading
may stop wherever the received bytes end, and goes on from there.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memchr, memcmp

from redis_fastbatch._core.runtime.buffer cimport ReceiveBuffer
from redis_fastbatch._core.codec cimport ValueCodec

import codecs

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
    #if !defined(PYPY_VERSION) && PY_VERSION_HEX < 0x03100000 \\
        && !(defined(_WIN32) && PY_VERSION_HEX >= 0x030D0000)
    PyAPI_FUNC(PyObject *) _PyDict_NewPresized(Py_ssize_t);
    #define FASTBATCH_NEW_DICT(size) _PyDict_NewPresized(size)
    #else
    #define FASTBATCH_NEW_DICT(size) ((void)(size), PyDict_New())
    #endif

    /* Merging a dict into another one makes room for all of its keys first. So merge a dict of one key that, for
       that moment, claims to have more. An assertion of a debug build would object. */
    #if !defined(PYPY_VERSION) && PY_VERSION_HEX < 0x03100000 && !defined(Py_DEBUG) && !defined(Py_GIL_DISABLED)
    static int fastbatch_make_room(PyObject *dict, Py_ssize_t size, PyObject *key) {
        PyObject *claims = PyDict_New();
        int result;
        if (claims == NULL || PyDict_SetItem(claims, key, Py_None) < 0) {
            Py_XDECREF(claims);
            return -1;
        }
        ((PyDictObject *)claims)->ma_used = size;
        result = PyDict_Merge(dict, claims, 1);
        ((PyDictObject *)claims)->ma_used = 1;
        Py_DECREF(claims);
        return result < 0 ? -1 : PyDict_DelItem(dict, key);
    }
    #else
    #define fastbatch_make_room(dict, size, key) 0
    #endif
    """
    dict FASTBATCH_NEW_DICT(Py_ssize_t size)
    int fastbatch_make_room(dict empty, Py_ssize_t size, object key) except -1

cdef enum:
    MOST_PRESIZED = 87_381   # keys for which _PyDict_NewPresized() makes room at the most


def new_dict(Py_ssize_t size, key=None):
    """Return an empty dict with room for `size` keys, if this version of Python can make one.

    Its table need not grow while it is filled. Measured: 27 ns a key, without the room 48. A table of 175,000 keys
    grows in one step of 4 to 12 ms, during which an event loop does nothing else.

    Args:
        size: the number of keys.
        key: a key such as it will have. The table for many keys is a third smaller if all of them are str.
    """
    cdef dict made
    if size <= MOST_PRESIZED:
        return FASTBATCH_NEW_DICT(size)
    made = {}
    fastbatch_make_room(made, size + 1, "" if type(key) is str else b"")
    return made


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
        self.parser_options = {}
        self.protocol_error = protocol_error
        self.bulk_left = -1

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
                protocolError=self.protocol_error,
                replyError=ErrorReply,
                notEnoughData=NOT_ENOUGH,
                **self.parser_options,
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

    def is_all(self, bytes expected):
        """Return whether the received bytes are just `expected`, which are read then. Else nothing is read."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(expected)
        if self.end - self.position != size:
            return False
        if memcmp(self.data + self.position, PyBytes_AS_STRING(expected), size) != 0:
            return False
        self.position = self.end
        return True

    cdef Py_ssize_t next_number(self, Py_ssize_t most) except -2:
        """Read the next reply if it is a number from 0 to `most`, and return it. Else read nothing, and return -1."""
        cdef Py_ssize_t stop = self.after_integer()
        cdef Py_ssize_t number
        # Longer ones are left to the general way of reading.
        if stop == INCOMPLETE or stop - self.position - 3 >= LONGEST_NUMBER:
            return -1
        number = self.integer(self.position + 1, stop - 2)
        if not 0 <= number <= most:
            return -1
        self.position = stop
        return number

    def only_number(self, Py_ssize_t most):
        """Return the number from 0 to `most` that has arrived, if that is all, and read it.

        Else return -1. Then nothing is read.
        """
        cdef Py_ssize_t start = self.position
        cdef Py_ssize_t number = self.next_number(most)
        if number >= 0 and self.position != self.end:
            self.position = start
            return -1
        return number

    def skip_all(self, Py_ssize_t count):
        """Return whether `count` replies have arrived, no error among them, and nothing else.

        They are read then. Else nothing is read: skip() reads them, and finds the errors.
        """
        cdef Py_ssize_t start = self.position
        cdef Py_ssize_t pushes = len(self.pushes)
        cdef list errors = []
        try:
            if self.skip(count, 0, errors) == count and self.position == self.end:
                if not errors and len(self.pushes) == pushes:
                    return True
        except self.protocol_error:
            # It is raised once more when skip() reads the same bytes.
            pass
        self.rewind(start, pushes)
        return False

    cdef int rewind(self, Py_ssize_t position, Py_ssize_t pushes) except -1:
        """Go back to `position`, where a reply begins, and to the number of pushes that had come before it."""
        self.position = position
        self.scanned = 0
        self.pending = 0
        self.bulk_left = -1
        del self.pushes[pushes:]
        return 0

    def all_values(self, list keys, ValueCodec codec, object default, dict out):
        """Read an array of the values of `keys`, if just that has arrived, and put them into `out`.

        Returns:
            How many bytes were read. 0 if anything is not as it should be: then nothing is read, and array() and
            values() return or raise it.
        """
        cdef Py_ssize_t start = self.position
        cdef list failures = []
        if start == self.end or self.data[start] != c'*':
            return 0
        try:
            if self.array(len(keys)) is True and self.values(keys, 0, codec, default, out, failures) == len(keys):
                if not failures and self.position == self.end:
                    return self.end - start
        except (DecodeError, self.protocol_error):
            # It is raised once more when values() reads the same bytes.
            failures.append(None)
        out.clear()
        self.position = start
        self.elements = 0
        return 0

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

    def skip(self, Py_ssize_t limit, Py_ssize_t first, list errors):
        """Read up to `limit` replies of any kind, and return how many had arrived whole.

        They are only counted. An error reply is appended to `errors` as (first + its index, ErrorReply). Of a large
        reply, the bytes that have arrived are dropped at once.

        Raises:
            ProtocolError: the bytes are not RESP.
        """
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t stop
        while done < limit:
            if not self.pending:
                if self.end - self.position >= 5 and memcmp(self.data + self.position, b"+OK\r\n", 5) == 0:
                    self.position += 5
                    done += 1
                    continue
                stop = self.after_integer()
                if stop != INCOMPLETE:
                    self.position = stop
                    done += 1
                    continue
                if not self.skip_pushes():
                    break
                if self.data[self.position] in b"-!":
                    stop = reply_end(self, self.position, 0)
                    if stop == INCOMPLETE:
                        break
                    errors.append((first + done, error_reply(self, stop)))
                    self.position = stop
                    done += 1
                    continue
                self.pending = 1
            if not self.drop():
                break
            done += 1
        return done

    cdef Py_ssize_t after_integer(self) noexcept:
        """Return where the integer at `position` ends; INCOMPLETE for other replies."""
        cdef Py_ssize_t at = self.position + 1
        cdef Py_ssize_t last = min(self.end - 1, at + LONGEST_NUMBER + 1)
        if at >= last or self.data[self.position] != c':':
            return INCOMPLETE
        if self.data[at] == c'-':
            at += 1
        while at < last and c'0' <= self.data[at] <= c'9':
            at += 1
        if at < last + 1 and at + 1 < self.end and self.data[at] == c'\r' and self.data[at + 1] == c'\n':
            return at + 2
        return INCOMPLETE

    cdef Py_ssize_t head_end(self, Py_ssize_t at, Py_ssize_t* count) except -2:
        """Return where the first line of the reply or element at `at` ends; INCOMPLETE if it has not arrived.

        `count` becomes the size of a bulk string in bytes, or the number of the elements that follow; -1 for a
        null, and 0 for a reply of one line.
        """
        cdef char kind
        cdef Py_ssize_t stop
        count[0] = 0
        if at >= self.end:
            return INCOMPLETE
        kind = self.data[at]
        if kind not in b"+-:_,#($=!*~%":
            return self.broken(f"byte {kind & 0xFF:#04x} begins no reply")
        stop = self.line_end(at)
        if stop == INCOMPLETE:
            return INCOMPLETE
        if kind in b"$=!*~%":
            count[0] = self.integer(at + 1, stop)
            if kind == c'%':
                count[0] *= 2
        return stop + 2

    cdef Py_ssize_t whole_end(self) except -2:
        """Return where the reply at `position` ends; INCOMPLETE if it has not arrived whole.

        The next call goes on where this one found no more bytes, so that a large reply is not read many times.
        """
        cdef Py_ssize_t at = self.position + self.scanned
        cdef Py_ssize_t pending = self.pending if self.pending else 1
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t stop
        while pending:
            stop = self.head_end(at, &count)
            if stop == INCOMPLETE:
                break
            if self.data[at] in b"$=!":
                if count >= 0:
                    if self.max_value_size and count > self.max_value_size:
                        raise DecodeError(f"a value of {count} bytes: max_value_size is {self.max_value_size}")
                    if self.end - stop - 2 < count:
                        break
                    stop += count + 2
                    if self.data[stop - 2] != c'\r' or self.data[stop - 1] != c'\n':
                        self.broken("a bulk string that does not end where its length says")
            elif count > 0:
                pending += count
                if pending > ALL:
                    self.broken("a reply of more elements than any memory holds")
            pending -= 1
            at = stop
        self.pending = pending
        self.scanned = at - self.position if pending else 0
        return INCOMPLETE if pending else at

    cdef bint drop(self) except -1:
        """Drop what has arrived of the reply at `position`; return whether that is all of it."""
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t stop
        while self.pending:
            if self.bulk_left >= 0:
                count = min(self.bulk_left, self.end - self.position)
                self.position += count
                self.bulk_left -= count
                if self.end - self.position < 2:
                    return False
                if self.data[self.position] != c'\r' or self.data[self.position + 1] != c'\n':
                    self.broken("a bulk string that does not end where its length says")
                self.position += 2
                self.bulk_left = -1
                self.pending -= 1
                continue
            stop = self.head_end(self.position, &count)
            if stop == INCOMPLETE:
                return False
            if self.data[self.position] in b"$=!":
                self.bulk_left = count
                self.pending -= count < 0
            else:
                self.pending += (count if count > 0 else 0) - 1
                if self.pending > ALL:
                    self.broken("a reply of more elements than any memory holds")
            self.position = stop
        return True

    def replies(self, Py_ssize_t limit, list out, list errors, ReplyFormat form):
        """Read up to `limit` replies of any kind, and return how many had arrived whole.

        Each is appended to `out`. An error reply is an exception there, and so is a reply that cannot be decoded.
        The indices of these, among the replies that were read now, are appended to `errors`.

        Raises:
            ProtocolError: the bytes are not RESP.
            DecodeError: a bulk string is longer than max_value_size.
        """
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t stop, at
        while done < limit:
            if not self.pending and not self.skip_pushes():
                break
            stop = self.whole_end()
            if stop == INCOMPLETE:
                break
            at = self.position
            try:
                reply = form.read(self, &at, 0)
            except UnicodeDecodeError as error:
                reply = error
            if isinstance(reply, Exception):
                errors.append(done)
            out.append(reply)
            self.position = stop
            done += 1
        return done

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


cdef object error_reply(ReplyReader reader, Py_ssize_t stop):
    """Return the error reply at `position`, which ends at `stop`."""
    cdef Py_ssize_t start = reader.position + 1
    if reader.data[reader.position] == c'!':
        start = reader.line_end(start) + 2
    return ErrorReply(reader.data[start:stop - 2].decode("utf-8", "replace"))


cdef class ReplyFormat:
    """How replies become Python objects.

    Strings become bytes, or str if there is an encoding; numbers int and float; arrays, sets and pushes lists;
    maps dicts. This is what redis-py's connections return.

    Args:
        explain: makes exceptions of error replies.
        encoding: of strings; None leaves them bytes.
        errors: the encoding's error handler.
    """

    def __init__(self, explain, str encoding=None, str errors="strict"):
        self.explain = explain
        self.encoding = encoding
        self.errors = errors
        self.is_utf8 = encoding is not None and codecs.lookup(encoding).name == "utf-8"

    def decoded(self, reply):
        """Return a reply that another parser has read, with its strings decoded and its errors explained."""
        if isinstance(reply, ErrorReply):
            return self.explain(reply)
        if isinstance(reply, bytes):
            return reply if self.encoding is None else reply.decode(self.encoding, self.errors)
        if isinstance(reply, (list, set)):
            return list(map(self.decoded, reply))
        if isinstance(reply, dict):
            return {self.decoded(key): self.decoded(value) for key, value in reply.items()}
        return reply

    cdef object text(self, const char* data, Py_ssize_t size):
        if self.encoding is None:
            return PyBytes_FromStringAndSize(data, size)
        if self.is_utf8 and self.errors == "strict":
            return PyUnicode_DecodeUTF8(data, size, NULL)
        return PyBytes_FromStringAndSize(data, size).decode(self.encoding, self.errors)

    cdef object read(self, ReplyReader reader, Py_ssize_t* at, int depth):
        """Return the reply or element at `at`, which has arrived whole; move `at` to its end."""
        cdef Py_ssize_t start = at[0]
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t stop = reader.head_end(start, &count)
        cdef Py_ssize_t i
        cdef char kind = reader.data[start]
        cdef list items
        at[0] = stop
        if kind == c'$' or kind == c'=' or kind == c'!':
            if count < 0:
                return None
            at[0] = stop + count + 2
            if kind == c'!':
                return self.explain(ErrorReply(reader.data[stop:stop + count].decode("utf-8", "replace")))
            if kind == c'=':
                if count < 4 or reader.data[stop + 3] != c':':
                    reader.broken("a verbatim string without its format")
                return self.text(reader.data + stop + 4, count - 4)
            return self.text(reader.data + stop, count)
        if kind != c'*' and kind != c'~' and kind != c'%':
            return self.read_line(reader, start + 1, stop - 2, kind)
        if count < 0:
            return None
        if depth >= MAX_NESTING:
            reader.broken(f"replies nested more than {MAX_NESTING} levels deep")
        if kind == c'%':
            return self.read_map(reader, at, count, depth)
        items = []
        for i in range(count):
            items.append(self.read(reader, at, depth + 1))
        return items

    cdef dict read_map(self, ReplyReader reader, Py_ssize_t* at, Py_ssize_t count, int depth):
        cdef dict items = {}
        cdef Py_ssize_t i
        for i in range(count // 2):
            key = self.read(reader, at, depth + 1)
            value = self.read(reader, at, depth + 1)
            try:
                items[key] = value
            except TypeError as error:
                # A key that is a list or a map.
                reader.broken(str(error))
        return items

    cdef object read_line(self, ReplyReader reader, Py_ssize_t start, Py_ssize_t stop, char kind):
        """Return a reply of one line."""
        if kind == c':':
            if stop - start < LONGEST_NUMBER:
                return reader.integer(start, stop)
            return whole_number(reader, start, stop)
        if kind == c'+':
            return self.text(reader.data + start, stop - start)
        if kind == c'-':
            return self.explain(ErrorReply(reader.data[start:stop].decode("utf-8", "replace")))
        if kind == c'(':
            return whole_number(reader, start, stop)
        if kind == c',':
            try:
                return float(reader.data[start:stop])
            except ValueError:
                reader.broken(f"a number that is {reader.data[start:stop]!r:.80}")
        if kind == c'#':
            if stop - start != 1 or reader.data[start] not in b"tf":
                reader.broken(f"a boolean that is {reader.data[start:stop]!r:.80}")
            return reader.data[start] == c't'
        if stop != start:
            reader.broken(f"a null with {stop - start} bytes")
        return None


cdef object whole_number(ReplyReader reader, Py_ssize_t start, Py_ssize_t stop):
    cdef bytes text = reader.data[start:stop]
    if not text.removeprefix(b"-").isdigit():
        reader.broken(f"a number that is {text!r:.80}")
    try:
        return int(text)
    except ValueError as error:
        # Python limits the digits that it converts.
        reader.broken(str(error))
