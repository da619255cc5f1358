# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.resp.commands cimport CommandEncoder
from redis_fastbatch._core.resp.encoder cimport BatchWriter, Chunk, Command


cdef struct Number:
    int64_t position        # of a command in the batch
    int slot                # of its keys, in a cluster


cdef class AnyCommand(Command):
    """Stands for commands that are all different, each an item of its batch."""


cdef class CommandChunk(Chunk):
    """A chunk of commands."""

    cdef Number* numbers
    cdef Py_ssize_t capacity_of_numbers

    cdef int number(self, int64_t position, int slot) except -1


cdef class CommandWriter(BatchWriter):
    """Encodes a stream of commands, a chunk at a time."""

    cdef CommandEncoder encoder
    cdef readonly int64_t position  # of the next command
