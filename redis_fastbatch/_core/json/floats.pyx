# cython: language_level=3
"""The text of a float, as repr() gives it: the fewest digits that read back as the same number.

Numbers with few decimals, which most data has, need only a division. Others use Schubfach (R. Giulietti, "The
Schubfach way to render doubles", 2020). A compiler without 128-bit integers uses the function that repr() calls.
"""

cimport cython
from cpython.mem cimport PyMem_Free
from libc.math cimport isfinite, rint, signbit
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset, strlen

from redis_fastbatch._core.json.text cimport decimal_width, put_digits

cdef extern from "Python.h":
    char* PyOS_double_to_string(double number, char format_code, int precision, int flags, int* kind) except NULL
    int Py_DTSF_ADD_DOT_0

cdef extern from *:
    """
    #include <float.h>
    /* Whether a double is computed as a double: the division is not exact with wider intermediate results. */
    #if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    #define FASTBATCH_EXACT 1
    #else
    #define FASTBATCH_EXACT 0
    #endif

    /* The upper 64 bits of a product of 128 by 64 bits, with the lowest bit set if lower bits are lost. */
    #if defined(__SIZEOF_INT128__)
    #define FASTBATCH_WIDE 1
    static inline uint64_t fastbatch_round_to_odd(uint64_t high, uint64_t low, uint64_t factor)
    {
        unsigned __int128 lower = (unsigned __int128)low * factor;
        unsigned __int128 upper = (unsigned __int128)high * factor + (uint64_t)(lower >> 64);
        return (uint64_t)(upper >> 64) | ((uint64_t)upper > 1);
    }
    #else
    #define FASTBATCH_WIDE 0
    static inline uint64_t fastbatch_round_to_odd(uint64_t high, uint64_t low, uint64_t factor)
    {
        (void)high; (void)low; (void)factor;
        return 0;
    }
    #endif
    """
    bint FASTBATCH_EXACT
    bint FASTBATCH_WIDE
    uint64_t round_to_odd "fastbatch_round_to_odd" (uint64_t high, uint64_t low, uint64_t factor) noexcept nogil

cdef enum:
    MOST_DECIMALS = 9
    FRACTION_BITS = 52
    LEAST_EXPONENT = -1074    # of the last bit of the smallest doubles
    LEAST_POWER = -292
    GREATEST_POWER = 324

cdef double* POWERS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]

cdef struct PowerOfTen:
    uint64_t high
    uint64_t low

cdef PowerOfTen[GREATEST_POWER - LEAST_POWER + 1] powers_of_ten
cdef bint powers_are_filled = False
cdef object LOCK = object()


cdef int prepare_floats() except -1:
    """Fill the table of the 128 leading bits of each power of ten, rounded up. Call it before put_float().

    It takes 1 ms, so the first codec does it, and not the import.
    """
    global powers_are_filled
    if not FASTBATCH_WIDE:
        return 0
    with cython.critical_section(LOCK):
        if not powers_are_filled:
            fill_powers()
            powers_are_filled = True
    return 0


cdef int fill_powers() except -1:
    for power in range(LEAST_POWER, GREATEST_POWER + 1):
        size = 10 ** abs(power)
        if power >= 0:
            shift = size.bit_length() - 128
            bits = -(-size >> shift) if shift > 0 else size << -shift
        else:
            bits = -(-(1 << (127 + size.bit_length())) // size)
        powers_of_ten[power - LEAST_POWER].high = bits >> 64
        powers_of_ten[power - LEAST_POWER].low = bits & 0xFFFFFFFFFFFFFFFF
    return 0


cdef char* put_float(char* p, double number) except NULL:
    """Write a float in at most LONGEST_FLOAT bytes, as json.dumps does; return the end."""
    cdef char* behind
    if not isfinite(number):
        return put_constant(p, number)
    if FASTBATCH_EXACT:
        behind = put_short(p, number)
        if behind != NULL:
            return behind
    if number == 0:
        return put_zero(p, number)
    if FASTBATCH_WIDE:
        return put_shortest(p, number)
    return put_slowly(p, number)


cdef char* put_constant(char* p, double number) noexcept:
    if number != number:
        memcpy(p, "NaN", 3)
        return p + 3
    if number < 0:
        p[0] = c'-'
        p += 1
    memcpy(p, "Infinity", 8)
    return p + 8


cdef char* put_zero(char* p, double number) noexcept:
    if signbit(number):
        p[0] = c'-'
        p += 1
    memcpy(p, "0.0", 3)
    return p + 3


cdef char* put_short(char* p, double number) noexcept:
    """Write a number of at most 15 digits and 9 decimals; return NULL for any other.

    Only one decimal of at most 15 digits reads back as a given double. The operands of `scaled / 10**decimals` are
    exact and the division rounds correctly. So if it gives the number again, `scaled` without trailing zeros has
    the digits that repr() finds.
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


cdef char* put_shortest(char* p, double number) noexcept:
    """Write any finite number except zero."""
    cdef uint64_t bits, fraction, digits
    cdef int exponent
    memcpy(&bits, &number, 8)
    fraction = bits & ((<uint64_t>1 << FRACTION_BITS) - 1)
    exponent = (bits >> FRACTION_BITS) & 0x7FF
    if bits >> 63:
        p[0] = c'-'
        p += 1
    if exponent:
        digits = shortest(fraction | (<uint64_t>1 << FRACTION_BITS), exponent - 1 + LEAST_EXPONENT,
                          fraction == 0 and exponent > 1, &exponent)
    else:
        digits = shortest(fraction, LEAST_EXPONENT, False, &exponent)
    while digits % 10 == 0:
        digits //= 10
        exponent += 1
    return put_decimal(p, digits, exponent)


cdef uint64_t shortest(uint64_t c, int q, bint uneven, int* exponent) noexcept:
    """Return the digits and the power of ten for c * 2**q, with the names and formulas of the paper.

    `uneven` means that the next smaller double is half as far away as the next larger one.
    """
    cdef int k = (q * 1262611 - (524031 if uneven else 0)) >> 22
    cdef int h = q + ((-k * 1741647) >> 19) + 1
    cdef PowerOfTen g = powers_of_ten[-k - LEAST_POWER]
    cdef uint64_t odd = c & 1
    cdef uint64_t value = round_to_odd(g.high, g.low, (4 * c) << h)
    cdef uint64_t lower = round_to_odd(g.high, g.low, (4 * c - 2 + uneven) << h) + odd
    cdef uint64_t upper = round_to_odd(g.high, g.low, (4 * c + 2) << h) - odd
    cdef uint64_t s = value >> 2
    cdef uint64_t tens = s // 10
    cdef bint below, above
    exponent[0] = k
    if s >= 10:
        below = lower <= 40 * tens
        above = 40 * tens + 40 <= upper
        if below != above:
            exponent[0] = k + 1
            return tens + above
    below = lower <= 4 * s
    above = 4 * s + 4 <= upper
    if below != above:
        return s + above
    # Both neighbours read back as the number: take the nearer one, or the even one.
    return s + (value > 4 * s + 2 or (value == 4 * s + 2 and s & 1))


cdef char* put_decimal(char* p, uint64_t digits, int exponent) noexcept:
    """Write digits * 10**exponent in the notation that repr() chooses."""
    cdef int width = <int>decimal_width(digits)
    cdef int point = width + exponent    # digits before the decimal point
    if point > 16 or point <= -4:
        return put_scientific(p, digits, width, point - 1)
    if point <= 0:
        memcpy(p, "0.000", 5)
        put_digits(p + 2 - point, digits, width)
        return p + 2 - point + width
    if exponent >= 0:
        put_digits(p, digits, width)
        memset(p + width, c'0', exponent)
        memcpy(p + point, ".0", 2)
        return p + point + 2
    put_digits(p + 1, digits, width)
    move_down(p, p + 1, point)
    p[point] = c'.'
    return p + width + 1


cdef inline void move_down(char* target, const char* source, Py_ssize_t size) noexcept:
    """Move a few bytes towards the front."""
    cdef Py_ssize_t i
    for i in range(size):
        target[i] = source[i]


cdef char* put_scientific(char* p, uint64_t digits, int width, int exponent) noexcept:
    put_digits(p + 1, digits, width)
    p[0] = p[1]
    if width > 1:
        p[1] = c'.'
        p += width + 1
    else:
        p += 1
    p[0] = c'e'
    p[1] = c'-' if exponent < 0 else c'+'
    exponent = -exponent if exponent < 0 else exponent
    width = 3 if exponent >= 100 else 2
    put_digits(p + 2, exponent, width)
    return p + 2 + width


cdef char* put_slowly(char* p, double number) except NULL:
    """Write any number with the function that repr() calls."""
    cdef char* text = PyOS_double_to_string(number, c'r', 0, Py_DTSF_ADD_DOT_0, NULL)
    cdef size_t size = strlen(text)
    memcpy(p, text, size)
    PyMem_Free(text)
    return p + size
