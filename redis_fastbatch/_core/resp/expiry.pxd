# cython: language_level=3
from libc.stdint cimport int64_t, uint64_t


cdef class ItemExpiry:
    """How long each item of a batch lives, where it is not the same time for all."""

    cdef readonly bytes unit        # the option of SET: EX, PX, EXAT or PXAT
    cdef readonly str name          # the caller's argument: ex, px, exat or pxat
    cdef readonly str column        # of a table, that has the times; None for none
    cdef object of_key
    cdef object convert
    cdef bytes bulk_unit
    cdef int64_t fixed
    cdef int64_t factor             # from what the caller gives to `unit`
    cdef double jitter
    cdef uint64_t state             # of the random numbers

    cdef int64_t of(self, object key) except -1
    cdef int64_t spread(self, int64_t number) except -1 nogil
    cdef double random(self) noexcept nogil


cdef class Times:
    """The times of a chunk's items, which are sent after the items."""

    cdef int64_t* numbers
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    cdef int add(self, int64_t number) except -1 nogil
