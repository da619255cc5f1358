# cython: language_level=3

cdef char* put_float(char* p, double number) except NULL nogil
