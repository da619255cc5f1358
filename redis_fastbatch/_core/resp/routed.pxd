# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.resp.commands cimport CommandEncoder
from redis_fastbatch._core.resp.encoder cimport BatchWriter, Chunk, Command
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.resp.slots cimport SLOTS


cdef class AskingCommand(Command):
    """A command with an ASKING before it."""


cdef class Router:
    """Knows the number of the node that has each slot."""

    cdef short[SLOTS] owners

    cdef int node_of(self, const char* key, Py_ssize_t size) noexcept


cdef class RoutedWriter(BatchWriter):
    """Encodes items into the chunk of the node that has their slot."""

    cdef Router router
    cdef list filling        # by node: a Chunk, or None
    cdef list positions      # by node: where in the input the chunk's first item is
    cdef list spare
    cdef Py_ssize_t chunks   # made so far
    cdef Chunk target        # the chunk of the item that is being encoded
    cdef dict found
    cdef object default
    cdef list order
    cdef readonly Py_ssize_t taken

    cdef Py_ssize_t spread(self, Py_ssize_t stop) except -2
    cdef Chunk chunk_for(self, Py_ssize_t node)


cdef class RoutedCommandWriter(RoutedWriter):
    """Encodes commands into the chunk of the node that has their slot."""

    cdef CommandEncoder encoder
    cdef OutputBuffer scratch   # the command that is being encoded
    cdef readonly int64_t first # the position of the first command
