# cython: language_level=3
"""Expiries that differ from item to item: of a callable, of a table's column, or spread at random."""

from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc

from redis_fastbatch.errors import EncodeError

cdef int64_t LONGEST = (<uint64_t>1 << 63) - 1


cdef int refuse_length(str name, int64_t number) except -1 nogil:
    with gil:
        raise EncodeError(f"{name} must be shorter where it is spread: {number} does not fit into 64 bits then")


cdef class ItemExpiry:
    """How long each item of a batch lives.

    Args:
        name: the caller's argument: "ex", "px", "exat" or "pxat".
        convert: called with `name` and what `of_key` returned, if it is not an int; returns the int.
        fixed: the time of all items, where neither `of_key` nor `column` is given.
        of_key: called with each key; returns its time.
        column: the column of a table that has the times.
        jitter: each time is changed at random by up to this part of it, and is sent in milliseconds.
        seed: begins the random numbers.
    """

    def __init__(self, str name, convert, *, int64_t fixed=0, of_key=None, str column=None, double jitter=0, uint64_t seed=0):
        self.name = name
        self.convert = convert
        self.fixed = fixed
        self.of_key = of_key
        self.column = column
        self.jitter = jitter
        self.state = seed
        # Spread in whole seconds, short times would hardly differ.
        self.unit = b"PX" if jitter > 0 else name.upper().encode()
        self.factor = 1000 if jitter > 0 and name == "ex" else 1
        self.bulk_unit = b"$%d\r\n%b\r\n" % (len(self.unit), self.unit)

    def time_of(self, key):
        """Return the time of an item in `unit`.

        Raises:
            EncodeError: the callable did not return a time.
        """
        return self.of(key)

    cdef int64_t of(self, object key) except -1:
        cdef int64_t number = self.fixed
        cdef object given
        if self.of_key is not None:
            given = self.of_key(key)
            if not PyLong_CheckExact(given) or not 0 < given <= LONGEST:
                try:
                    given = self.convert(self.name, given)
                except (TypeError, ValueError) as error:
                    raise EncodeError(str(error)) from error
            number = given
        return self.spread(number)

    cdef int64_t spread(self, int64_t number) except -1 nogil:
        """Return a time, which is positive, in `unit` and changed at random."""
        cdef int64_t span
        if self.jitter <= 0:
            return number
        if number > LONGEST // (4 * self.factor):
            refuse_length(self.name, number)
        number *= self.factor
        span = <int64_t>(<double>number * self.jitter * (2 * self.random() - 1))
        return number + span if number + span > 0 else 1

    cdef double random(self) noexcept nogil:
        """Return a random number from 0 to 1, by SplitMix64."""
        cdef uint64_t mixed
        self.state += <uint64_t>0x9E3779B97F4A7C15
        mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
        mixed = (mixed ^ (mixed >> 27)) * <uint64_t>0x94D049BB133111EB
        mixed = mixed ^ (mixed >> 31)
        return <double>(mixed >> 11) / <double>(<uint64_t>1 << 53)


cdef class Times:
    def __dealloc__(self):
        PyMem_RawFree(self.numbers)

    cdef int add(self, int64_t number) except -1 nogil:
        cdef Py_ssize_t capacity
        cdef int64_t* moved
        if self.size >= self.capacity:
            capacity = self.capacity * 2 if self.capacity else 256
            moved = <int64_t*>PyMem_RawRealloc(self.numbers, capacity * sizeof(int64_t))
            if moved == NULL:
                with gil:
                    raise MemoryError()
            self.numbers = moved
            self.capacity = capacity
        self.numbers[self.size] = number
        self.size += 1
        return 0
