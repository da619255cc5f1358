# cython: language_level=3
"""Tests whether a number of one type has an equal number of another type."""

from libc.math cimport fabs, isfinite
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint64_t

cdef extern from *:
    """
    #define TWO_63 9223372036854775808.0
    /* Half a unit above the largest float32 and float16: from there on, rounding gives an infinity. */
    #define BEYOND_SINGLE 3.4028235677973366e38
    #define BEYOND_HALF 65520.0
    """
    const double TWO_63
    const double BEYOND_SINGLE
    const double BEYOND_HALF


cdef inline bint in_ticks(int64_t seconds, int64_t fraction, int64_t unit, int64_t* ticks) noexcept:
    """Set `ticks` to seconds * unit + fraction; return False if that needs more than 64 bits."""
    if seconds < 0:
        # The smallest int64 of ticks is not a whole number of seconds, so the product alone would overflow.
        seconds += 1
        fraction -= unit
    if seconds > INT64_MAX // unit or seconds < INT64_MIN // unit:
        return False
    seconds *= unit
    if (fraction > 0 and seconds > INT64_MAX - fraction) or (fraction < 0 and seconds < INT64_MIN - fraction):
        return False
    ticks[0] = seconds + fraction
    return True


cdef inline bint as_double(bint without_sign, uint64_t word, double* number) noexcept:
    """Set `number` to the 64-bit int; return False if no float64 is equal to it."""
    if without_sign:
        number[0] = <double>word
        return number[0] < 2 * TWO_63 and <uint64_t>number[0] == word
    number[0] = <double><int64_t>word
    return number[0] < TWO_63 and <int64_t>number[0] == <int64_t>word


cdef inline bint is_within(double number, int digits) noexcept:
    """Return whether a float with `digits` bits of significand is finite if the number is."""
    if digits == 53:
        return True
    return fabs(number) < (BEYOND_SINGLE if digits == 24 else BEYOND_HALF) or not isfinite(number)


cdef inline bint has_digits(double whole, int digits) noexcept:
    """Return whether a float with `digits` bits of significand is equal to the whole number of at most 64 bits."""
    cdef uint64_t magnitude
    if digits == 53:
        return True
    if not is_within(whole, digits):
        return False
    magnitude = <uint64_t>fabs(whole)
    while magnitude >> digits:
        if magnitude & 1:
            return False
        magnitude >>= 1
    return True
