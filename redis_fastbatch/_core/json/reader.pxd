# cython: language_level=3
from redis_fastbatch._core.runtime.interned cimport Floats, Keys, ShortTexts
from redis_fastbatch._core.runtime.rows cimport RowShape, Shapes

cdef struct Place:
    const char* p
    const char* end
    int depth


cdef class JsonReader:
    """Reads JSON. Keeps repeated keys, shapes and texts between calls."""

    cdef Keys keys
    cdef ShortTexts texts
    cdef Floats floats
    cdef Shapes shapes
    cdef bint allow_nan     # read NaN and infinities
    cdef bint has_wrappers  # pass an object whose first key is "__type__" to read_wrapped()

    cdef object read_all(self, const char* data, Py_ssize_t size)
    cdef object read_locked(self, Place* at)
    cdef object read(self, Place* at)
    cdef object read_word(self, Place* at)
    cdef object read_number(self, Place* at)
    cdef object read_text(self, Place* at)
    cdef object read_key(self, Place* at)
    cdef list read_list(self, Place* at)
    cdef object read_object(self, Place* at)
    cdef object read_wrapped(self, Place* at)
    cdef dict read_row(self, Place* at, RowShape shape)
    cdef dict read_pairs(self, Place* at, dict row)
    cdef dict read_other_row(self, Place* at, RowShape shape, dict started, Py_ssize_t done)
    cdef dict read_learning(self, Place* at, Py_ssize_t slot)


cdef bint starts(Place* at, const char* text, Py_ssize_t size) noexcept
