# cython: language_level=3
"""Reads the values of hashes' fields, which are text, as the types that are asked for."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from redis_fastbatch._messages import format_key
from redis_fastbatch.errors import DecodeError

cdef enum:
    SAFE_DIGITS = 18        # a number of this many digits always fits into 64 bits
    EXACT_POWER = 22        # 10**22 is the largest power of ten that a double holds exactly

cdef uint64_t EXACT_INTEGER = (<uint64_t>1) << 53

cdef dict KINDS = {bytes: RAW, str: TEXT, int: INT, float: FLOAT, bool: BOOL}
cdef dict EXPECTED = {TEXT: "a str", INT: "an int", FLOAT: "a float", BOOL: "1 or 0"}

cdef double[EXACT_POWER + 1] POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
    1e20, 1e21, 1e22,
]


cdef extern from *:
    """
    #include <float.h>
    /* Whether a double is computed as a double: a division is not exact with wider intermediate results. */
    #if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    #define FASTBATCH_EXACT_DIVISION 1
    #else
    #define FASTBATCH_EXACT_DIVISION 0
    #endif
    """
    bint FASTBATCH_EXACT_DIVISION


cdef extern from "Python.h":
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0


cdef int kind_of(object given) except -1:
    kind = KINDS.get(given) if isinstance(given, type) else None
    if kind is None:
        raise TypeError(
            "types must be str, bytes, int, float or bool, or a mapping from fields to these, "
            f"found {given.__name__ if isinstance(given, type) else repr(given):.80}"
        )
    return kind


cdef object unfit(int kind, const char* data, Py_ssize_t size):
    """Return the error about a value that does not have the type that was asked for."""
    found = format_key(PyBytes_FromStringAndSize(data, size))
    return DecodeError(f"{EXPECTED[kind]} was expected, found {found}")


cdef object integer(const char* data, Py_ssize_t size):
    """Return the int of decimal digits, with or without a minus sign."""
    cdef long long number = 0
    cdef Py_ssize_t first = size > 1 and data[0] == c'-'
    cdef Py_ssize_t i
    if size == 0:
        raise unfit(INT, data, size)
    for i in range(first, size):
        if not c'0' <= data[i] <= c'9':
            raise unfit(INT, data, size)
    if size - first > SAFE_DIGITS:
        try:
            return int(PyBytes_FromStringAndSize(data, size))
        except ValueError:
            # Python limits the digits that it converts.
            raise unfit(INT, data, size) from None
    for i in range(first, size):
        number = number * 10 + (data[i] - c'0')
    return -number if first else number


cdef bint short_float(const char* data, Py_ssize_t size, double* number) noexcept:
    """Read a decimal whose digits and power of ten are exact as doubles. Return False for any other text.

    The result of one multiplication or division of exact numbers is rounded correctly.
    """
    cdef Py_ssize_t at = size > 0 and data[0] == c'-'
    cdef bint negative = at
    cdef uint64_t digits = 0
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t decimals = 0
    cdef bint fraction = False
    if not FASTBATCH_EXACT_DIVISION or at == size:
        return False
    while at < size:
        if c'0' <= data[at] <= c'9':
            digits = digits * 10 + <uint64_t>(data[at] - c'0')
            count += 1
            decimals += fraction
        elif data[at] == c'.' and not fraction:
            fraction = True
        else:
            return False
        at += 1
    if count == 0 or count > SAFE_DIGITS or digits > EXACT_INTEGER or decimals > EXACT_POWER:
        return False
    number[0] = <double>digits / POWERS[decimals]
    if negative:
        number[0] = -number[0]
    return True


cdef int parse_float(const char* data, Py_ssize_t size, double* number) except -1:
    """Read the float of a text, which is followed by a byte that cannot be part of a number."""
    cdef char* end = NULL
    if short_float(data, size, number):
        return 0
    try:
        number[0] = PyOS_string_to_double(data, &end, NULL)
    except ValueError:
        end = NULL
    if end != data + size or size == 0:
        raise unfit(FLOAT, data, size)
    return 0
