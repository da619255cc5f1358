# cython: language_level=3
"""The text of a float, the same as repr() gives: the fewest digits that read back as the same number."""

from cpython.mem cimport PyMem_Free
from libc.math cimport isfinite, rint
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, strlen

from redis_fastbatch._core.toolkit_json_text cimport decimal_width, put_digits

cdef extern from "Python.h":
    char* PyOS_double_to_string(double number, char format_code, int precision, int flags, int* kind) except NULL
    int Py_DTSF_ADD_DOT_0

cdef extern from *:
    """
    /* Whether a double is computed as a double: where intermediate results are wider the short way is not exact. */
    #include <float.h>
    #if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    #define FASTBATCH_EXACT 1
    #else
    #define FASTBATCH_EXACT 0
    #endif
    """
    bint FASTBATCH_EXACT

cdef enum:
    MOST_DECIMALS = 9

cdef double* POWERS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]


cdef char* put_float(char* p, double number) except NULL:
    """Writes at most LONGEST_FLOAT bytes; returns the place behind. NaN and the infinities as json.dumps."""
    cdef char* behind
    if not isfinite(number):
        return put_constant(p, number)
    if FASTBATCH_EXACT:
        behind = put_short(p, number)
        if behind != NULL:
            return behind
    return put_shortest(p, number)


cdef char* put_constant(char* p, double number) noexcept:
    if number != number:
        memcpy(p, "NaN", 3)
        return p + 3
    if number < 0:
        p[0] = c'-'
        p += 1
    memcpy(p, "Infinity", 8)
    return p + 8


cdef char* put_short(char* p, double number) noexcept:
    """A number of at most 15 digits and 9 decimals; NULL when it is none.

    A decimal of at most 15 digits is the only one so short that reads back as its double. So when
    `scaled / 10**decimals`, which is exact operands divided with correct rounding, gives the number again,
    `scaled` without trailing zeros holds the digits that repr() finds.
    """
    cdef double size = -number if number < 0 else number
    cdef double scaled
    cdef uint64_t digits, whole
    cdef int decimals = MOST_DECIMALS
    cdef Py_ssize_t width
    if not (1e-4 <= size < 1e15):
        return NULL
    while size * POWERS[decimals] >= 1e15:
        decimals -= 1
    scaled = rint(size * POWERS[decimals])
    if scaled / POWERS[decimals] != size or scaled >= 1e15:
        return NULL
    digits = <uint64_t>scaled
    while decimals >= 4 and digits % 10000 == 0:
        digits //= 10000
        decimals -= 4
    while decimals > 1 and digits % 10 == 0:
        digits //= 10
        decimals -= 1
    if decimals == 0:
        digits *= 10
        decimals = 1
    if number < 0:
        p[0] = c'-'
        p += 1
    whole = digits // <uint64_t>POWERS[decimals]
    width = decimal_width(whole)
    put_digits(p, whole, width)
    p += width
    p[0] = c'.'
    put_digits(p + 1, digits, decimals)
    return p + 1 + decimals


cdef char* put_shortest(char* p, double number) except NULL:
    """Any finite number, through what repr() itself calls."""
    cdef char* text = PyOS_double_to_string(number, c'r', 0, Py_DTSF_ADD_DOT_0, NULL)
    cdef size_t size = strlen(text)
    memcpy(p, text, size)
    PyMem_Free(text)
    return p + size
