# cython: language_level=3
"""Hash slots of Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint16_t, uint8_t
from libc.string cimport memchr

# TABLES[n] has the CRC of each byte followed by n zeros.
cdef uint16_t[4][256] TABLES


cdef void make_tables() noexcept:
    """Make the tables of CRC-16/XMODEM: polynomial 0x1021, initial value 0, nothing reflected."""
    cdef int byte, bit, zeros
    cdef uint16_t crc
    for byte in range(256):
        crc = <uint16_t>(byte << 8)
        for bit in range(8):
            crc = <uint16_t>(crc << 1) ^ (0x1021 if crc & 0x8000 else 0)
        TABLES[0][byte] = crc
    for zeros in range(1, 4):
        for byte in range(256):
            crc = TABLES[zeros - 1][byte]
            TABLES[zeros][byte] = <uint16_t>(crc << 8) ^ TABLES[0][crc >> 8]


make_tables()


cdef uint16_t crc16(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    cdef uint16_t crc = 0
    cdef Py_ssize_t i = 0
    while i + 3 < size:
        # Four bytes at a time, because their look-ups do not depend on each other.
        crc = (
            TABLES[3][(crc >> 8) ^ data[i]] ^ TABLES[2][(crc & 0xFF) ^ data[i + 1]]
            ^ TABLES[1][data[i + 2]] ^ TABLES[0][data[i + 3]]
        )
        i += 4
    while i < size:
        crc = <uint16_t>(crc << 8) ^ TABLES[0][(crc >> 8) ^ data[i]]
        i += 1
    return crc


cdef int slot_of(const char* key, Py_ssize_t size) noexcept nogil:
    """Return the slot of a key. If the key contains {tag}, only the first tag counts, unless it is empty."""
    cdef const char* opening = <const char*>memchr(key, c'{', size)
    cdef const char* closing
    if opening != NULL:
        closing = <const char*>memchr(opening + 1, c'}', size - (opening + 1 - key))
        if closing != NULL and closing > opening + 1:
            return crc16(<const uint8_t*>opening + 1, closing - opening - 1) % SLOTS
    return crc16(<const uint8_t*>key, size) % SLOTS


def key_slot(key):
    """Return the hash slot of a key's bytes, 0 to 16383, as CLUSTER KEYSLOT does."""
    cdef Py_buffer view
    PyObject_GetBuffer(key, &view, PyBUF_SIMPLE)
    try:
        return slot_of(<const char*>view.buf, view.len) if view.len else 0
    finally:
        PyBuffer_Release(&view)
