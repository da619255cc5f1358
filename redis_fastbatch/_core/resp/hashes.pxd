# cython: language_level=3
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.commands cimport CommandEncoder
from redis_fastbatch._core.resp.encoder cimport BatchWriter, Chunk, Command, Place
from redis_fastbatch._core.resp.routed cimport RoutedWriter


cdef class HashCommand(Command):
    """A command of hashes, such as HSET, whose number of arguments differs from item to item."""


cdef const char* whole_item(const char* p, Py_ssize_t prefix, Place* place) noexcept


cdef class MappingChunk(Chunk):
    """A chunk with an HSET for each mapping."""

    cdef readonly Py_ssize_t most_fields    # that one of its hashes has
    cdef CommandEncoder encoder
    cdef ValueCodec field_codec             # None: values are written as redis-py writes them

    cdef int put_head(self, Py_ssize_t fields) except -1
    cdef int put_fields_locked(self, dict fields) except -1
    cdef int put_fields(self, dict fields) except -1
    cdef int put_pairs(self, list pairs) except -1
    cdef int put_field_value(self, object value) except -1


cdef class ExpireChunk(Chunk):
    """A chunk that lets some hashes of another chunk expire."""

    cdef readonly Chunk hashes
    cdef readonly Command expire
    cdef readonly list written              # positions in `hashes`


cdef class MappingWriter(BatchWriter):
    """Encodes mappings as hashes, a chunk at a time."""

    cdef CommandEncoder encoder
    cdef ValueCodec field_codec
    cdef readonly Py_ssize_t batches


cdef class RoutedMappingWriter(RoutedWriter):
    """Encodes mappings as hashes, a chunk at a time for each node of a cluster."""

    cdef CommandEncoder encoder
    cdef ValueCodec field_codec
