# cython: language_level=3
"""Checks whether bytes that are not all ASCII are UTF-8."""

from libc.stdint cimport uint64_t

# A shift-based automaton (https://gist.github.com/pervognsen/218ea17743e1442e59bb60d29b1aa725): a state is a number of
# bits, and the next state is found by shifting the byte's row by it. A step takes one or two cycles, without a branch.
# The rows have six bits for each of the states below.
STATES = ["start", "bad", "one more", "two more", "three more", "after E0", "after ED", "after F0", "after F4"]

cdef enum:
    TWO_HALVES = 32

cdef uint64_t[256] STEPS
cdef uint64_t START = 0


def next_state(str state, int byte):
    """Return the state after a byte, by the table of well-formed sequences in the Unicode Standard, chapter 3, table 3-7."""
    if state == "start":
        if byte < 0x80:
            return "start"
        if 0xC2 <= byte <= 0xDF:
            return "one more"
        if byte in (0xE0, 0xED, 0xF0, 0xF4):
            return f"after {byte:X}"
        if 0xE1 <= byte <= 0xEF:
            return "two more"
        return "three more" if 0xF1 <= byte <= 0xF3 else "bad"
    first, last, following = {
        "bad": (1, 0, "bad"),
        "one more": (0x80, 0xBF, "start"),
        "two more": (0x80, 0xBF, "one more"),
        "three more": (0x80, 0xBF, "two more"),
        "after E0": (0xA0, 0xBF, "one more"),
        "after ED": (0x80, 0x9F, "one more"),
        "after F0": (0x90, 0xBF, "two more"),
        "after F4": (0x80, 0x8F, "two more"),
    }[state]
    return following if first <= byte <= last else "bad"


def fill_steps():
    cdef uint64_t row
    cdef int byte
    for byte in range(256):
        row = 0
        for number, state in enumerate(STATES):
            row |= <uint64_t>(6 * STATES.index(next_state(state, byte))) << (6 * number)
        STEPS[byte] = row


fill_steps()


cdef bint is_utf8(const char* text, Py_ssize_t size) noexcept nogil:
    """Return whether the bytes are well-formed: no overlong forms, surrogates, cut ends or code points past U+10FFFF."""
    cdef const unsigned char* p = <const unsigned char*>text
    cdef const unsigned char* end = p + size
    cdef const unsigned char* half = end
    cdef const unsigned char* second = end
    cdef uint64_t state = START
    cdef uint64_t other = START
    cdef int moved = 0
    if size >= TWO_HALVES:
        # A step waits for the one before it; two halves are checked in the time of one. The second begins where a
        # character does: after more than three bytes that continue one, it is wrong in any case.
        half = p + size // 2
        while moved < 3 and (half[0] & 0xC0) == 0x80:
            half += 1
            moved += 1
        second = half
        while p < half and second < end:
            state = STEPS[p[0]] >> (state & 63)
            other = STEPS[second[0]] >> (other & 63)
            p += 1
            second += 1
    while p < half:
        state = STEPS[p[0]] >> (state & 63)
        p += 1
    while second < end:
        other = STEPS[second[0]] >> (other & 63)
        second += 1
    return (state & 63) == START and (other & 63) == START
