# cython: language_level=3
"""Reads replies of any kind as Python objects: those that hiredis makes of them.

An aggregate is built while its elements arrive. So no byte is read twice, however long a reply is.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_Append, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_INCREF

from redis_fastbatch._core.resp.replies cimport ReplyReader

from redis_fastbatch._core.resp.replies import ErrorReply

cdef enum:
    INCOMPLETE = 0
    SAFE_DIGITS = 18      # a number of this many digits always fits into 64 bits

cdef Py_ssize_t CAPACITY_KEPT = 1024 * 1024

cdef object NOT_ENOUGH = object()
cdef object OPENED = object()
cdef object LARGEST = 2**63 - 1


cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)
    object PyUnicode_Decode(const char* text, Py_ssize_t size, const char* encoding, const char* errors)
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0


cdef class ObjectReader(ReplyReader):
    """Received bytes, and the reply in them that is being read.

    Args:
        make_parser, protocol_error: as for ReplyReader.

    Attributes:
        errors: how many error replies were read since restart(), also within other replies.
    """

    def __init__(self, *, make_parser, protocol_error):
        ReplyReader.__init__(self, 0, make_parser=make_parser, protocol_error=protocol_error)

    def __dealloc__(self):
        self.let_go()

    cdef void let_go(self) noexcept:
        """Drop what was read of an unfinished reply."""
        while self.depth:
            self.depth -= 1
            Py_CLEAR(self.open[self.depth].made)
            Py_CLEAR(self.open[self.depth].key)

    def restart(self, str encoding, str errors):
        """Forget everything, and read the replies of another exchange.

        Args:
            encoding: how strings are decoded; None to leave them bytes.
            errors: what to do with bytes that are not of that encoding, as bytes.decode() takes it.
        """
        name = None if encoding is None else encoding.encode()
        handler = errors.encode()
        self.clear()
        if name != self.encoding or handler != self.encoding_errors:
            # For push messages.
            self.parser_options = {} if encoding is None else {"encoding": encoding, "errors": errors}
            self.parser = None
        self.encoding, self.encoding_errors = name, handler
        self.is_utf8 = name is not None and name.lower() in (b"utf-8", b"utf8")

    def clear(self):
        """Forget everything that was received, and free memory that only a large reply needs."""
        self.let_go()
        self.position = 0
        self.end = 0
        self.scanned = 0
        self.pending = 0
        self.bulk_left = -1
        self.errors = 0
        self.pushes.clear()
        self.shrink(CAPACITY_KEPT)

    def objects(self, list out, Py_ssize_t wanted, explain, check=None, undecoded=None):
        """Read replies to the end of `out`, until it has `wanted`.

        Args:
            out: gets the replies.
            wanted: how many it is to have.
            explain: called with an ErrorReply, returns what stands for it.
            check: called with each reply that is or contains an error.
            undecoded: the indexes in `out` of replies whose strings stay bytes; None for no reply.

        Returns:
            Whether it has as many. If not, call again once more bytes have arrived.

        Raises:
            UnicodeDecodeError: a string cannot be decoded. Nothing more can be read from the connection.
            ProtocolError: the bytes are not RESP.
        """
        cdef Py_ssize_t done = PyList_GET_SIZE(out)
        cdef Py_ssize_t errors
        while done < wanted:
            if not self.depth:
                if self.position < self.end and self.data[self.position] in b">|" and not self.skip_pushes():
                    return False
                self.decoding = self.encoding is not None and (undecoded is None or done not in undecoded)
            errors = self.errors
            value = self.take(explain)
            if value is NOT_ENOUGH:
                return False
            if self.errors != errors and check is not None:
                check(value)
            PyList_Append(out, value)
            done += 1
        return True

    cdef object take(self, object explain):
        """Return the next reply; NOT_ENOUGH if it has not arrived whole. What has arrived of it is kept."""
        while True:
            value = self.element(explain)
            if value is NOT_ENOUGH:
                return value
            if value is OPENED:
                continue
            while self.depth and self.put(value):
                value = self.close()
            if not self.depth:
                return value

    cdef object element(self, object explain):
        """Return a reply that has no elements; OPENED if an aggregate begins; NOT_ENOUGH."""
        cdef Py_ssize_t start, stop, size
        cdef char kind
        if self.position >= self.end:
            return NOT_ENOUGH
        kind = self.data[self.position]
        if kind == c'$' or kind == c'=':
            start = self.bulk_start(&size)
            if start == INCOMPLETE:
                return NOT_ENOUGH
            if size < 0:
                if size != -1:
                    self.broken(f"a string of {size} bytes")
                self.position = start
                return None
            if self.end - start - 2 < size:
                return NOT_ENOUGH
            stop = start + size
            if self.data[stop] != c'\r' or self.data[stop + 1] != c'\n':
                self.broken("a string that does not end where its length says")
            if kind == c'=':
                if size < 4 or self.data[start + 3] != c':':
                    self.broken("a verbatim string without its format")
                start += 4
            value = self.text(start, stop - start)
            self.position = stop + 2
            return value
        stop = self.line_end(self.position)
        if stop == INCOMPLETE:
            return NOT_ENOUGH
        start = self.position + 1
        if kind in b"*%~":
            return self.open_aggregate(kind, start, stop)
        value = self.line(explain, kind, start, stop)
        self.position = stop + 2
        return value

    cdef object open_aggregate(self, char kind, Py_ssize_t start, Py_ssize_t stop):
        """Begin an array, a set (which becomes a list) or a map. Return it if it is empty, None if it is null."""
        cdef Py_ssize_t count = self.integer(start, stop)
        cdef Aggregate* opened
        self.position = stop + 2
        if count == -1:
            return None
        if count < 0:
            self.broken(f"a reply of {count} elements")
        made = {} if kind == c'%' else []
        if count == 0:
            return made
        if self.depth == DEEPEST:
            self.broken(f"replies nested more than {DEEPEST} levels deep")
        Py_INCREF(made)
        opened = &self.open[self.depth]
        opened.made = <PyObject*>made
        opened.key = NULL
        opened.left = count
        opened.pairs = kind == c'%'
        self.depth += 1
        return OPENED

    cdef object line(self, object explain, char kind, Py_ssize_t start, Py_ssize_t stop):
        """Return a reply that is a single line."""
        cdef Py_ssize_t size = stop - start
        cdef Py_ssize_t i
        if kind == c':':
            return self.number(start, stop)
        if kind == c'+':
            return self.text(start, size)
        if kind == c'-':
            self.errors += 1
            return explain(ErrorReply(PyUnicode_DecodeUTF8(self.data + start, size, b"replace")))
        if kind == c'_' and size == 0:
            return None
        if kind == c'#' and size == 1 and self.data[start] in b"tf":
            return self.data[start] == c't'
        if kind == c',':
            return self.double(start, stop)
        if kind == c'(':
            for i in range(start + (size > 1 and self.data[start] == c'-'), stop):
                if not c'0' <= self.data[i] <= c'9':
                    self.broken(f"byte {self.data[i] & 0xFF:#04x} in a number")
            return self.text(start, size)
        self.broken(f"byte {kind & 0xFF:#04x} begins no reply, or not this one")

    cdef object number(self, Py_ssize_t start, Py_ssize_t stop):
        if stop - start <= SAFE_DIGITS:
            return self.integer(start, stop)
        digits = PyBytes_FromStringAndSize(self.data + start, stop - start)
        if not digits.removeprefix(b"-").isdigit() or len(digits) > 20 or not -LARGEST - 1 <= int(digits) <= LARGEST:
            self.broken(f"a number was expected, got {digits!r:.80}")
        return int(digits)

    cdef object double(self, Py_ssize_t start, Py_ssize_t stop):
        cdef char* end = NULL
        cdef double found = 0.0
        try:
            found = PyOS_string_to_double(self.data + start, &end, NULL)
        except ValueError:
            end = NULL
        if end != self.data + stop:
            self.broken("a line that is not a floating-point number")
        return found

    cdef object text(self, Py_ssize_t start, Py_ssize_t size):
        if not self.decoding:
            return PyBytes_FromStringAndSize(self.data + start, size)
        if self.is_utf8:
            return PyUnicode_DecodeUTF8(self.data + start, size, <const char*>self.encoding_errors)
        return PyUnicode_Decode(
            self.data + start, size, <const char*>self.encoding, <const char*>self.encoding_errors
        )

    cdef bint put(self, object value) except -1:
        """Put a value into the innermost aggregate. Return whether that is complete."""
        cdef Aggregate* inner = &self.open[self.depth - 1]
        if not inner.pairs:
            PyList_Append(<object>inner.made, value)
        elif inner.key == NULL:
            Py_INCREF(value)
            inner.key = <PyObject*>value
            return False
        else:
            PyDict_SetItem(<object>inner.made, <object>inner.key, value)
            Py_CLEAR(inner.key)
        inner.left -= 1
        return inner.left == 0

    cdef object close(self):
        """Return the innermost aggregate, which is complete."""
        self.depth -= 1
        made = <object>self.open[self.depth].made
        Py_CLEAR(self.open[self.depth].made)
        return made
