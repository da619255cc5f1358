# cython: language_level=3


cdef object unescaped(const char** place, const char* end)
