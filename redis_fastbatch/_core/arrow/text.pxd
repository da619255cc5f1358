# cython: language_level=3
"""Writes dates, times, durations and decimals as text, without the GIL.

The text is that of isoformat() and str() of Python's types. Every function writes at `p` and returns the position
after the text, or NULL if Python has no such value.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from redis_fastbatch._core.runtime.decimals cimport put_decimal_int, put_digits

cdef enum:
    DAY = 86400
    GIGA = 1_000_000_000
    # 0001-01-01 and 9999-12-31 in days since 1970: the range of datetime.date.
    FIRST_DAY = -719162
    LAST_DAY = 2932896


cdef inline int64_t floor_div(int64_t value, int64_t by) noexcept nogil:
    cdef int64_t quotient = value // by
    return quotient - 1 if value % by < 0 else quotient


cdef inline int64_t floor_mod(int64_t value, int64_t by) noexcept nogil:
    cdef int64_t rest = value % by
    return rest + by if rest < 0 else rest


cdef inline char* put_date(char* p, int64_t days) noexcept nogil:
    """Write YYYY-MM-DD, with Howard Hinnant's algorithm civil_from_days."""
    cdef int64_t shifted, era, day_of_era, year_of_era, day_of_year, month, day, year
    if days < FIRST_DAY or days > LAST_DAY:
        return NULL
    shifted = days + 719468
    era = shifted // 146097
    day_of_era = shifted - era * 146097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    p = put_digits(p, year, 4)
    p[0] = c'-'
    p = put_digits(p + 1, month, 2)
    p[0] = c'-'
    return put_digits(p + 1, day, 2)


cdef inline char* put_time(char* p, int64_t seconds, int64_t nanoseconds) noexcept nogil:
    """Write HH:MM:SS; add a fraction of six digits if it is not zero, of nine if six are not enough."""
    p = put_digits(p, seconds // 3600, 2)
    p[0] = c':'
    p = put_digits(p + 1, seconds // 60 % 60, 2)
    p[0] = c':'
    p = put_digits(p + 1, seconds % 60, 2)
    if nanoseconds == 0:
        return p
    p[0] = c'.'
    if nanoseconds % 1000 == 0:
        return put_digits(p + 1, nanoseconds // 1000, 6)
    return put_digits(p + 1, nanoseconds, 9)


cdef inline char* put_time_of_day(char* p, int64_t ticks, int64_t unit) noexcept nogil:
    if ticks < 0 or ticks // unit >= DAY:
        return NULL
    return put_time(p, ticks // unit, ticks % unit * (GIGA // unit))


cdef inline char* put_local_timestamp(char* p, int64_t ticks, int64_t unit) noexcept nogil:
    """Write YYYY-MM-DDTHH:MM:SS and the fraction."""
    cdef int64_t seconds = floor_div(ticks, unit)
    cdef int64_t days = floor_div(seconds, DAY)
    p = put_date(p, days)
    if p == NULL:
        return NULL
    p[0] = c'T'
    return put_time(p + 1, seconds - days * DAY, floor_mod(ticks, unit) * (GIGA // unit))


cdef inline char* put_duration(char* p, int64_t ticks, int64_t unit) noexcept nogil:
    """Write ISO 8601 in days and seconds, such as P1DT2.5S, as msgspec writes a timedelta."""
    cdef uint64_t magnitude = (<uint64_t>0 - <uint64_t>ticks) if ticks < 0 else <uint64_t>ticks
    cdef uint64_t seconds = magnitude // <uint64_t>unit
    cdef uint64_t fraction = magnitude % <uint64_t>unit * (GIGA // <uint64_t>unit)
    if ticks < 0:
        p[0] = c'-'
        p += 1
    p[0] = c'P'
    p += 1
    if seconds >= DAY or magnitude == 0:
        p = put_decimal_int(p, seconds // DAY, False)
        p[0] = c'D'
        p += 1
    seconds %= DAY
    if seconds == 0 and fraction == 0:
        return p
    p[0] = c'T'
    p = put_decimal_int(p + 1, seconds, False)
    if fraction:
        p[0] = c'.'
        p = put_digits(p + 1, fraction, 9)
        while (p - 1)[0] == c'0':
            p -= 1
    p[0] = c'S'
    return p + 1


cdef inline int magnitude_digits(char* digits, const uint8_t* value, int width, bint* negative) noexcept nogil:
    """Write the digits of a little-endian two's complement integer of up to 32 bytes; return their count."""
    cdef uint32_t[8] limbs
    cdef char[80] reversed_digits
    cdef int count = width // 4
    cdef int size = 0
    cdef int i
    cdef uint64_t carry, part
    memcpy(limbs, value, width)
    negative[0] = limbs[count - 1] >> 31
    if negative[0]:
        carry = 1
        for i in range(count):
            carry += <uint32_t>~limbs[i]
            limbs[i] = <uint32_t>carry
            carry >>= 32
    while count > 0:
        # Each pass divides by 10**9; the remainder is the next nine digits.
        part = 0
        i = count
        while i > 0:
            i -= 1
            part = (part << 32) | limbs[i]
            limbs[i] = <uint32_t>(part // GIGA)
            part %= GIGA
        while count > 0 and limbs[count - 1] == 0:
            count -= 1
        i = 0
        while (i < 9 and count > 0) or part:
            reversed_digits[size] = <char>(c'0' + part % 10)
            part //= 10
            size += 1
            i += 1
    if size == 0:
        reversed_digits[0] = c'0'
        size = 1
    for i in range(size):
        digits[i] = reversed_digits[size - 1 - i]
    return size


cdef inline char* put_decimal(char* p, const uint8_t* value, int width, int32_t scale) noexcept nogil:
    """Write a decimal as str(decimal.Decimal) does, with an exponent if that has one."""
    cdef char[80] digits
    cdef bint negative
    cdef int size = magnitude_digits(digits, value, width, &negative)
    cdef int left = size - scale    # digits before the point
    cdef int point = left if scale >= 0 and left > -6 else 1
    if negative:
        p[0] = c'-'
        p += 1
    if point <= 0:
        p[0] = c'0'
        p[1] = c'.'
        memset(p + 2, c'0', -point)
        memcpy(p + 2 - point, digits, size)
        p += 2 - point + size
    else:
        memcpy(p, digits, point)
        p += point
        if point < size:
            p[0] = c'.'
            memcpy(p + 1, digits + point, size - point)
            p += 1 + size - point
    if left != point:
        p[0] = c'E'
        p[1] = c'-' if left < point else c'+'
        p = put_decimal_int(p + 2, left - point if left > point else point - left, False)
    return p
