# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.expiry cimport ItemExpiry, Times
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef class Command:
    """How the items of a batch are put into RESP commands."""

    cdef readonly bytes name
    cdef readonly bint many          # one command carries many items, and has one reply
    cdef readonly bint counted       # the number of items is the first argument
    cdef readonly bint with_values
    cdef readonly tuple tail         # arguments after the item or items
    cdef readonly ItemExpiry expiry  # of each item, where it is not in `tail`; else None
    cdef readonly bytes usual_reply
    cdef bytes bulk_name
    cdef bytes prefix                # before each item, if each item is a command
    cdef bytes suffix                # after each item, or after the last one of many
    cdef bytes bulk_tail             # the arguments of `tail`
    cdef const char* before_time     # what goes around an item's own expiry
    cdef Py_ssize_t before_time_size
    cdef const char* after_time
    cdef Py_ssize_t after_time_size
    cdef Py_ssize_t suffix_arguments
    cdef Py_ssize_t headroom


cdef struct Place:
    # Where an item is in its chunk, without its command's prefix and suffix.
    const char* data
    Py_ssize_t size
    const char* key
    Py_ssize_t key_size


cdef class Chunk(OutputBuffer):
    """Whole commands, and the items that they carry."""

    cdef readonly Command command
    cdef list item_keys
    cdef list item_values
    cdef Py_ssize_t items
    cdef readonly bint sealed
    cdef Times times                 # of the items, if they are sent later; else None
    cdef Py_ssize_t value_width      # digits of the last value's length: the next one's are likely to be as many

    cdef int put_key(self, object key, str encoding, str errors) except -1
    cdef int put_value(self, object value, ValueCodec codec) except -1
    cdef int put_bulk(self, const char* data, Py_ssize_t size) except -1
    cdef int put_item(self, object key, object value, ValueCodec codec, str encoding, str errors) except -1
    cdef int put_time(self, int64_t number) except -1 nogil
    cdef int take_back(self, Py_ssize_t mark) except -1
    cdef void put_command_header(self) noexcept
    cdef Chunk blank(self, Command command)
    cdef const char* next_item(self, const char* p, Place* place) noexcept
    cdef int slot(self, Place* place, Py_ssize_t i) noexcept
    cdef int add(self, Place* place, Chunk other, Py_ssize_t i) except -1
    cdef int adopt(self, Chunk other, Py_ssize_t i) except -1


cdef bytes key_bytes(object key, str encoding, str errors)
cdef const char* after_bulk(const char* p) noexcept


cdef class ItemSource:
    """Keys, or pairs of key and value, one after the other."""

    cdef dict mapping
    cdef Py_ssize_t position
    cdef Py_ssize_t size
    cdef object iterator
    cdef bint pairs
    cdef object key
    cdef object value

    cdef bint advance(self) except -1
    cdef bint advance_locked(self, dict mapping) except -1
    cdef bint advance_mapping(self) except -1
    cdef int unpack(self, object item) except -1


cdef class BatchWriter:
    """Encodes a stream of items, a chunk at a time."""

    cdef ItemSource source
    cdef readonly Command command
    cdef readonly ValueCodec codec
    cdef readonly list failures
    cdef readonly bint in_memory
    cdef readonly bint exhausted
    cdef readonly bint source_pending
    cdef readonly object source_error
    cdef str encoding
    cdef str errors
    cdef public Py_ssize_t max_items
    cdef public Py_ssize_t max_bytes
    cdef Py_ssize_t mark    # where the item being encoded begins
    cdef bint in_item       # an item is being encoded: an exception concerns it

    cdef bint run(self, Chunk chunk, Py_ssize_t stop) except -1
