# cython: language_level=3
"""Reads the values of hashes' fields, which are text, as the types that are asked for."""

cdef enum:
    RAW
    TEXT
    INT
    FLOAT
    BOOL
    CODEC

cdef int kind_of(object given) except -1
cdef object unfit(int kind, const char* data, Py_ssize_t size)
cdef object integer(const char* data, Py_ssize_t size)
cdef int parse_float(const char* data, Py_ssize_t size, double* number) except -1
