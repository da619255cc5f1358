# cython: language_level=3


cdef enum:
    LONGEST_FLOAT = 32   # bytes that put_float() may need


cdef int prepare_floats() except -1
cdef char* put_float(char* p, double number) except NULL
