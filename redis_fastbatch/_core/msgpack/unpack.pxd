# cython: language_level=3
from cpython.object cimport PyObject

from redis_fastbatch._core.runtime.interned cimport Floats, Keys, ShortTexts
from redis_fastbatch._core.runtime.rows cimport RowShape, Shapes

cdef struct Cursor:
    const unsigned char* begin
    const unsigned char* p
    const unsigned char* end
    Py_ssize_t pending_items     # items that the enclosing lists still need, at least a byte each
    int depth
    bint in_key         # the cursor is inside a map's key


cdef class Unpacker:
    """Unpacks MessagePack. It keeps keys, shapes of rows and short texts between calls, because they repeat."""

    cdef object ext_hook
    cdef Keys keys
    cdef ShortTexts texts
    cdef Floats floats
    cdef Shapes shapes

    cdef object unpack_all(self, const char* data, Py_ssize_t size)
    cdef object unpack_locked(self, Cursor* c)
    cdef object unpack(self, Cursor* c)
    cdef PyObject* unpack_plain(self, Cursor* c, unsigned int marker) except? NULL
    cdef object unpack_marked(self, Cursor* c, unsigned int marker)
    cdef object unpack_text(self, Cursor* c, Py_ssize_t size)
    cdef object unpack_key(self, Cursor* c)
    cdef object unpack_other_key(self, Cursor* c)
    cdef object unpack_binary(self, Cursor* c, Py_ssize_t size)
    cdef object unpack_list(self, Cursor* c, Py_ssize_t count)
    cdef object unpack_map(self, Cursor* c, Py_ssize_t count)
    cdef dict unpack_row(self, Cursor* c, RowShape shape)
    cdef dict unpack_pairs(self, Cursor* c, dict row, Py_ssize_t count)
    cdef dict unpack_learning(self, Cursor* c, Py_ssize_t count, Py_ssize_t slot)
    cdef object unpack_ext(self, Cursor* c, Py_ssize_t size)
    cdef object call_hook(self, Cursor* c, int code, bytes data)
    cdef object unpack_timestamp(self, Cursor* c, const unsigned char* p, Py_ssize_t size)


cdef str trailing_bytes_reason(const char* data, Py_ssize_t size, Py_ssize_t left)
