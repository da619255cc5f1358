# cython: language_level=3
"""Writes floats in decimal as repr() does: as the shortest text that reads back as the same float.

Most floats in data have few digits, and are written without Python. If an integer of at most 15 digits divided by
a power of ten is equal to the float, then no shorter text and no other of this length is. Python writes the rest.
"""

from cpython.mem cimport PyMem_Free
from libc.math cimport fabs, rint, signbit
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, strlen

from redis_fastbatch._core.runtime.decimals cimport put_decimal_int, put_digits

cdef extern from "Python.h":
    int Py_DTSF_ADD_DOT_0
    char* PyOS_double_to_string(double number, char form, int precision, int flags, int* kind) except NULL

cdef enum:
    MOST_DECIMALS = 18

cdef double[MOST_DECIMALS + 1] POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
]


cdef char* put_float(char* p, double number) except NULL nogil:
    """Write at most 32 characters, and return the position after them."""
    cdef double magnitude = fabs(number)
    cdef double scaled, whole
    cdef uint64_t divisor
    cdef int decimals
    # Outside these bounds repr() uses an exponent, or the integer has more than 15 digits. A NaN is outside too.
    if magnitude == 0 or 1e-4 <= magnitude < 1e15:
        for decimals in range(MOST_DECIMALS + 1):
            scaled = magnitude * POWERS[decimals]
            whole = rint(scaled)
            if whole >= 1e15:
                break
            if whole / POWERS[decimals] == magnitude:
                if signbit(number):
                    p[0] = c'-'
                    p += 1
                if decimals == 0:
                    whole *= 10
                    decimals = 1
                divisor = <uint64_t>POWERS[decimals]
                p = put_decimal_int(p, <uint64_t>whole // divisor, False)
                p[0] = c'.'
                return put_digits(p + 1, <uint64_t>whole % divisor, decimals)
    return put_by_python(p, number)


cdef char* put_by_python(char* p, double number) except NULL nogil:
    cdef char* text
    cdef size_t size
    with gil:
        text = PyOS_double_to_string(number, c'r', 0, Py_DTSF_ADD_DOT_0, NULL)
        size = strlen(text)
        memcpy(p, text, size)
        PyMem_Free(text)
    return p + size
