# cython: language_level=3
"""Reads names of fields, and skips values that no column takes."""

from cpython.bytes cimport PyBytes_FromStringAndSize

from redis_fastbatch.errors import DecodeError

cdef enum:
    MAX_SKIPPED_DEPTH = 1024


cdef int fail(Reading* r, str reason) except -1:
    raise DecodeError(reason, r.p - r.begin)


cdef bytes take_name(Reading* r):
    """Read the key of a map, which must be a str."""
    cdef unsigned int marker
    cdef Py_ssize_t size = 0
    need(r, 1)
    marker = r.p[0]
    r.p += 1
    if 0xA0 <= marker < 0xC0:
        size = marker & 0x1F
    elif 0xD9 <= marker <= 0xDB:
        size = take_length(r, 1 << (marker - 0xD9))
    else:
        r.p -= 1
        fail(r, f"expected a str as the name of a field, found the MessagePack byte 0x{marker:02x}")
    need(r, size)
    r.p += size
    name = PyBytes_FromStringAndSize(<const char*>r.p - size, size)
    if not name.isascii():
        try:
            name.decode("utf-8")
        except UnicodeDecodeError as error:
            fail(r, f"expected UTF-8 in the name of a field, found {name!r:.80}: {error.reason}")
    return name


cdef int skip(Reading* r, int depth) except -1:
    """Skip a value."""
    cdef unsigned int marker
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t values = 0
    cdef Py_ssize_t i
    if depth > MAX_SKIPPED_DEPTH:
        fail(r, f"nested more than {MAX_SKIPPED_DEPTH} levels deep")
    need(r, 1)
    marker = r.p[0]
    r.p += 1
    if marker < 0x80 or marker >= 0xE0 or 0xC0 == marker or 0xC2 <= marker <= 0xC3:
        return 0
    if marker < 0x90:
        values = 2 * (marker & 0x0F)
    elif marker < 0xA0:
        values = marker & 0x0F
    elif marker < 0xC0:
        size = marker & 0x1F
    elif 0xC4 <= marker <= 0xC6:
        size = take_length(r, 1 << (marker - 0xC4))
    elif 0xC7 <= marker <= 0xC9:
        size = take_length(r, 1 << (marker - 0xC7)) + 1
    elif 0xCA <= marker <= 0xCB:
        size = 4 << (marker - 0xCA)
    elif 0xCC <= marker <= 0xD3:
        size = 1 << (marker & 3)
    elif 0xD4 <= marker <= 0xD8:
        size = (1 << (marker - 0xD4)) + 1
    elif 0xD9 <= marker <= 0xDB:
        size = take_length(r, 1 << (marker - 0xD9))
    elif 0xDC <= marker <= 0xDD:
        values = take_length(r, 2 << (marker - 0xDC))
    elif 0xDE <= marker <= 0xDF:
        values = 2 * take_length(r, 2 << (marker - 0xDE))
    else:
        r.p -= 1
        fail(r, "expected MessagePack, found the byte 0xc1, which it never uses")
    need(r, size)
    r.p += size
    for i in range(values):
        skip(r, depth + 1)
    return 0
