# cython: language_level=3

cdef enum:
    SLOTS = 16384

cdef int slot_of(const char* key, Py_ssize_t size) noexcept nogil
