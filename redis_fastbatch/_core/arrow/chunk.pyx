# cython: language_level=3
"""The chunks that a table's rows are written into."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.bulk cimport after_bulk
from redis_fastbatch._core.resp.encoder cimport Chunk, Command, Place


cdef class TableChunk(Chunk):
    def __init__(self, Command command, row_codec):
        self.row_codec = row_codec
        Chunk.__init__(self, command)

    def __dealloc__(self):
        PyMem_RawFree(self.rows)

    @property
    def keys(self):
        """The rows' numbers, which reports use as keys."""
        cdef Py_ssize_t i
        cdef list keys
        if len(self.item_keys) != self.items:
            keys = []
            for i in range(self.items):
                keys.append(self.rows[i])
            self.item_keys = keys
        return self.item_keys

    @property
    def values(self):
        """The rows as the dicts that batch_get() would return; each is made when it is read."""
        return ChunkRows(self)

    def row_value(self, Py_ssize_t wanted):
        """Return the dict of a row, decoded from the bytes of its command."""
        cdef const char* p = self.data + self.command.headroom
        cdef const char* data = NULL
        cdef Py_ssize_t size = 0
        cdef Place place
        cdef Py_ssize_t i
        if not 0 <= wanted < self.items:
            raise IndexError(wanted)
        for i in range(wanted + 1):
            p = self.next_item(p, &place)
        after_bulk(after_bulk(place.data, &data, &size), &data, &size)
        return self.row_codec(PyBytes_FromStringAndSize(data, size))

    cdef int add_row(self, int64_t row) except -1 nogil:
        if self.items >= self.rows_capacity:
            self.more_rows()
        self.rows[self.items] = row
        self.items += 1
        return 0

    cdef int more_rows(self) except -1 nogil:
        cdef Py_ssize_t capacity = self.rows_capacity * 2 if self.rows_capacity else 256
        cdef int64_t* moved = <int64_t*>PyMem_RawRealloc(self.rows, capacity * sizeof(int64_t))
        if moved == NULL:
            with gil:
                raise MemoryError()
        self.rows = moved
        self.rows_capacity = capacity
        return 0

    cdef Chunk blank(self, Command command):
        return TableChunk(command, self.row_codec)

    cdef int adopt(self, Chunk other, Py_ssize_t i) except -1:
        if self.times is not None:
            self.times.add(other.times.numbers[i])
        return self.add_row((<TableChunk>other).rows[i])


cdef class ChunkRows:
    """The values of a chunk's rows, as a sequence."""

    cdef TableChunk chunk

    def __init__(self, TableChunk chunk):
        self.chunk = chunk

    def __len__(self):
        return self.chunk.items

    def __getitem__(self, Py_ssize_t i):
        return self.chunk.row_value(i)
