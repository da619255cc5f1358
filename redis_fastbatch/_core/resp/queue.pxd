# cython: language_level=3
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef class PackedCommands(OutputBuffer):
    """RESP commands, one after the other."""

    cdef object pack_other
    cdef object known_name     # the last command name that was found to be one word

    cdef int put_command(self, tuple arguments) except -1
    cdef int put_pieces(self, tuple arguments) except -1
    cdef bint is_one_word(self, object name) noexcept


cdef class CommandQueue:
    """The commands of a pipeline, and what is to be done with their replies."""

    cdef list commands
    cdef readonly dict callbacks
    cdef readonly set undecoded
    cdef readonly bint regular
    cdef readonly bint caught

    cdef int note(self, Py_ssize_t i, object command, object find, object never_decode, object empty_response) except -1
