# cython: language_level=3
"""Packs the commands that a redis-py pipeline has queued, and calls the response callbacks for their replies."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Contains, PyDict_GetItemWithError, PyDict_Size
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact

from redis_fastbatch._core.resp.arguments cimport append_argument
from redis_fastbatch._core.resp.framing cimport digits, put_header
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.runtime.utf8 cimport PyUnicode_DATA, PyUnicode_GET_LENGTH, PyUnicode_IS_COMPACT_ASCII

cdef enum:
    HEADER = 32       # room for the header of a command

cdef str KEYS = "keys"
cdef frozenset PLAIN = frozenset({bytes, str, int, bool, float, list, dict, set, tuple, type(None)})


cdef extern from "Python.h":
    bint PyExceptionInstance_Check(object value)


cdef class PackedCommands(OutputBuffer):
    """RESP commands, one after the other: those that redis-py sends for the same arguments.

    Args:
        pack_other: called with the arguments of a command that has other arguments than str, bytes, int and float,
            or a name of several words. Returns its bytes in pieces, as the pack_command() of redis-py's connections
            does.
    """

    def __init__(self, pack_other):
        self.pack_other = pack_other

    def pack(self, tuple arguments):
        """Append a command."""
        self.put_command(arguments)

    cdef int put_command(self, tuple arguments) except -1:
        cdef Py_ssize_t mark = self.end
        cdef Py_ssize_t count = PyTuple_GET_SIZE(arguments)
        cdef Py_ssize_t i
        cdef char* p
        if count and self.is_one_word(<object>PyTuple_GET_ITEM(arguments, 0)):
            reserve(self, HEADER)
            p = put_header(self.data + self.end, c'*', count, digits(count))
            self.end = p - self.data
            for i in range(count):
                if not append_argument(self, <object>PyTuple_GET_ITEM(arguments, i)):
                    break
            else:
                return 0
        self.end = mark
        return self.put_pieces(arguments)

    cdef bint is_one_word(self, object name) noexcept:
        """Return whether this is the name of a command that redis-py does not split into words."""
        cdef const unsigned char* text
        cdef Py_ssize_t size, i
        if name is self.known_name:
            return True
        if PyUnicode_CheckExact(name) and PyUnicode_IS_COMPACT_ASCII(name):
            text, size = <const unsigned char*>PyUnicode_DATA(name), PyUnicode_GET_LENGTH(name)
        elif PyBytes_CheckExact(name):
            text, size = <const unsigned char*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)
        else:
            return False
        for i in range(size):
            if text[i] <= c' ':
                return False
        if size:
            self.known_name = name
        return size > 0

    cdef int put_pieces(self, tuple arguments) except -1:
        cdef Py_buffer view
        for piece in self.pack_other(*arguments):
            PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
            try:
                self.append(<const char*>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        return 0


cdef class CommandQueue:
    """The commands of a pipeline, as redis-py queues them, and what is to be done with their replies.

    Args:
        commands: a list of (arguments, options).
        find: called with the name of a command, returns its response callback or None.
        never_decode: the option of a command whose reply is not decoded.
        empty_response: the option of a command whose errors are replaced.

    Attributes:
        callbacks: the callbacks by the names of the commands. None where there is no callback.
        undecoded: the positions of the commands with the option `never_decode`; None if there are none.
        caught: whether a callback has raised an exception that took a reply's place.
        regular: the commands are tuples of a tuple and a dict, and none has the option `empty_response`.
    """

    def __init__(self, list commands, find, str never_decode, str empty_response):
        # A copy: a callback may change the pipeline.
        self.commands = commands[:]
        self.callbacks = {}
        self.regular = True
        for i in range(PyList_GET_SIZE(self.commands)):
            if self.regular:
                self.note(i, self.commands[i], find, never_decode, empty_response)

    cdef int note(
        self, Py_ssize_t i, object command, object find, object never_decode, object empty_response
    ) except -1:
        if not PyTuple_CheckExact(command) or PyTuple_GET_SIZE(command) != 2:
            self.regular = False
            return 0
        arguments, options = command
        if not PyTuple_CheckExact(arguments) or not PyTuple_GET_SIZE(arguments) or type(options) is not dict:
            self.regular = False
            return 0
        name = arguments[0]
        if PyDict_GetItemWithError(self.callbacks, name) == NULL:
            self.callbacks[name] = find(name)
        if PyDict_Size(options) > 1 or (PyDict_Size(options) == 1 and not PyDict_Contains(options, KEYS)):
            if PyDict_Contains(options, empty_response):
                self.regular = False
            if PyDict_Contains(options, never_decode):
                if self.undecoded is None:
                    self.undecoded = set()
                self.undecoded.add(i)
        return 0

    def pack(self, PackedCommands into):
        """Append all commands to `into`."""
        cdef Py_ssize_t i
        for i in range(PyList_GET_SIZE(self.commands)):
            into.put_command(self.commands[i][0])

    def call_back(self, list replies, frozenset ignored, caught, is_awaitable=None):
        """Replace each reply, unless it is an exception, by what its command's callback makes of it.

        Args:
            replies: as many as there are commands.
            ignored: the options of commands that callbacks do not get.
            caught: an exception of this class that a callback raises takes the reply's place; () for none.
            is_awaitable: tells whether a value has to be awaited; None if none ever has.

        Returns:
            The positions of values that have to be awaited.
        """
        cdef Py_ssize_t i
        cdef PyObject* found
        awaitable = []
        for i in range(PyList_GET_SIZE(self.commands)):
            reply = replies[i]
            if PyExceptionInstance_Check(reply):
                continue
            arguments, options = self.commands[i]
            found = PyDict_GetItemWithError(self.callbacks, arguments[0])
            if found == NULL or found == <PyObject*>None:
                continue
            callback = <object>found
            try:
                if not options or (PyDict_Size(options) == 1 and PyDict_Contains(options, KEYS)):
                    reply = callback(reply)
                else:
                    reply = callback(reply, **{name: value for name, value in options.items() if name not in ignored})
            except caught as error:
                reply = error
                self.caught = True
            replies[i] = reply
            if is_awaitable is not None and type(reply) not in PLAIN and is_awaitable(reply):
                awaitable.append(i)
        return awaitable
