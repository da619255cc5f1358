# cython: language_level=3
"""Encodes a stream of commands into chunks. Each command is an item of its batch, known by its position."""

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport int64_t

from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.commands cimport CommandEncoder, after_command, as_command
from redis_fastbatch._core.resp.encoder cimport BatchWriter, Chunk, Command, ItemSource, Place

from redis_fastbatch._messages import format_command, format_error
from redis_fastbatch.errors import EncodeError


cdef class AnyCommand(Command):
    """Stands for commands that are all different."""

    def __init__(self):
        Command.__init__(self, b"a command", many=False)
        self.prefix = b""
        self.suffix = b""


cdef class CommandChunk(Chunk):
    """Commands in one buffer. Its keys are their positions in the batch, its values the commands as they were given."""

    def __dealloc__(self):
        PyMem_RawFree(self.numbers)

    @property
    def keys(self):
        """The positions of the commands in the batch."""
        cdef Py_ssize_t i
        cdef list positions = []
        for i in range(self.items):
            positions.append(self.numbers[i].position)
        return positions

    cdef int number(self, int64_t position, int slot) except -1:
        """Count a command, whose bytes were appended, as an item."""
        cdef Py_ssize_t capacity = self.capacity_of_numbers
        cdef Number* moved
        if self.items >= capacity:
            capacity = max(256, 2 * capacity)
            moved = <Number*>PyMem_RawRealloc(self.numbers, capacity * sizeof(Number))
            if moved == NULL:
                raise MemoryError()
            self.numbers = moved
            self.capacity_of_numbers = capacity
        self.numbers[self.items].position = position
        self.numbers[self.items].slot = slot
        self.items += 1
        return 0

    cdef Chunk blank(self, Command command):
        return CommandChunk(command)

    cdef const char* next_item(self, const char* p, Place* place) noexcept:
        place.data = p + PyBytes_GET_SIZE(self.command.prefix)
        p = after_command(place.data)
        place.size = p - place.data
        return p

    cdef int slot(self, Place* place, Py_ssize_t i) noexcept:
        return self.numbers[i].slot

    cdef int adopt(self, Chunk other, Py_ssize_t i) except -1:
        cdef Number* number = &(<CommandChunk>other).numbers[i]
        self.item_values.append(other.item_values[i])
        return self.number(number.position, number.slot)


cdef class CommandWriter(BatchWriter):
    """Encodes commands into chunks.

    Args:
        commands: an iterable of tuples or lists.
        encoder: encodes them.
        max_items: the most commands that a chunk holds.
        max_bytes: a chunk is full once it holds that many bytes.
        position: of the first command.

    Attributes:
        failures: (position, command, exception) for each command that could not be encoded. The caller empties it.
        position: of the next command.
    """

    def __init__(
        self, commands, CommandEncoder encoder, *, Py_ssize_t max_items, Py_ssize_t max_bytes, int64_t position=0
    ):
        BatchWriter.__init__(self, (), ANY_COMMAND, ValueCodec(), max_items=max_items, max_bytes=max_bytes)
        self.source = ItemSource(commands, False)
        self.encoder = encoder
        self.position = position

    def blank(self):
        """Return an empty chunk for fill()."""
        return CommandChunk(self.command)

    cdef bint run(self, Chunk chunk, Py_ssize_t stop) except -1:
        cdef ItemSource source = self.source
        cdef CommandEncoder encoder = self.encoder
        cdef CommandChunk commands = <CommandChunk>chunk
        cdef Py_ssize_t limit = chunk.start + self.max_bytes
        if stop > self.max_items:
            stop = self.max_items
        while chunk.items < stop and chunk.end < limit:
            if not source.advance():
                return True
            self.mark = chunk.end
            self.in_item = True
            self.position += 1
            encoder.put(chunk, as_command(source.key))
            chunk.item_values.append(source.key)
            commands.number(self.position - 1, 0)
            self.in_item = False
        return False

    def failure(self, error):
        """Return an entry of `failures` for the command that raised `error`."""
        return command_failure(self.position - 1, self.source.key, error)


def command_failure(position, command, error):
    """Return (position, command, EncodeError) for a command that raised `error` when it was encoded."""
    reason = error.reason if isinstance(error, EncodeError) else format_error(error)
    explained = EncodeError(f"command {position} ({format_command(command)}): {reason}")
    explained.__cause__ = error if not isinstance(error, EncodeError) else error.__cause__
    return position, command, explained


ANY_COMMAND = AnyCommand()
