# cython: language_level=3
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef class CommandRule:
    """What is known of a command by its name."""

    cdef readonly str refusal       # why it is not sent; None if it is
    cdef readonly dict refusals     # the same, by its first argument or second word
    cdef readonly Py_ssize_t first  # the word that is its first key; 0 if it has none there
    cdef readonly Py_ssize_t last   # and its last key; negative from the end
    cdef readonly Py_ssize_t step
    cdef readonly Py_ssize_t counted    # the word that says how many keys follow it; 0 if none does
    cdef readonly bytes after       # the word after which the first half of the rest are keys


cdef class CommandName:
    """The name of a command, as it was given, encoded."""

    cdef readonly tuple words       # as bytes
    cdef Py_ssize_t count
    cdef bytes bulks                # the words as bulk strings
    cdef readonly CommandRule rule  # None for a command without one


cdef class CommandEncoder:
    """Encodes commands as redis-py packs them."""

    cdef readonly str encoding
    cdef readonly str errors
    cdef bint is_utf8               # strict UTF-8, which is encoded here
    cdef bint keeps_ascii           # the encoding leaves ASCII unchanged
    cdef dict rules                 # by the first word of the name, in upper case
    cdef dict texts                 # names that were seen, by str
    cdef dict raw                   # and by bytes
    cdef object last_given
    cdef CommandName last_name

    cdef CommandName name_of(self, object given)
    cdef CommandName new_name(self, object given)
    cdef int refuse(self, CommandName name, tuple command) except -1
    cdef int put(self, OutputBuffer out, tuple command) except -1
    cdef int put_argument(self, OutputBuffer out, object argument, Py_ssize_t index) except -1
    cdef int put_other(self, OutputBuffer out, object argument, Py_ssize_t index) except -1
    cdef int put_text(self, OutputBuffer out, str text, Py_ssize_t index) except -1


cdef struct Word:
    const char* data
    Py_ssize_t size


cdef const char* next_word(const char* p, Word* word) noexcept nogil
cdef const char* first_word(const char* p, Py_ssize_t* count) noexcept nogil
cdef const char* after_command(const char* p) noexcept nogil
cdef tuple as_command(object given)
cdef int slot_of_command(const char* p, CommandName name) except -1
