# cython: language_level=3
"""Checks whether bytes that are not all ASCII are UTF-8."""

from libc.stdint cimport uint64_t

# A shift-based automaton (https://gist.github.com/pervognsen/218ea17743e1442e59bb60d29b1aa725): a state is a number of
# bits, and the next state is found by shifting the byte's row by it. A step takes one or two cycles, without a branch.
# The rows have six bits for each of the states below.
STATES = ["start", "bad", "one more", "two more", "three more", "after E0", "after ED", "after F0", "after F4"]

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
    cdef uint64_t state = START
    while p < end:
        state = STEPS[p[0]] >> (state & 63)
        p += 1
    return (state & 63) == START
