# cython: language_level=3
from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF


cdef class RowShape:
    """The keys of a map seen before, and a dict of them to copy instead of building one key by key."""

    cdef Py_ssize_t count
    cdef Py_ssize_t misses      # rows since the last hit
    cdef tuple names
    cdef dict template
    cdef bint direct            # `slots` may be used on copies of the template
    cdef const char** keys      # each key as MessagePack has it, header included
    cdef Py_ssize_t* sizes
    cdef list encoded           # owns what `keys` points to

    cdef dict blank(self)
    cdef PyObject** slots(self, dict row) noexcept


cdef inline int fill_slot(RowShape shape, dict row, PyObject** slots, Py_ssize_t i, PyObject* value) except -1:
    """Makes `value` the row's value number `i` and takes over the reference; `slots` are shape.slots(row)."""
    cdef PyObject* old
    if slots == NULL:
        try:
            return PyDict_SetItem(row, shape.names[i], <object>value)
        finally:
            Py_DECREF(<object>value)
    old = slots[i]
    slots[i] = value
    Py_DECREF(<object>old)
    return 0


cdef inline int put_value(RowShape shape, dict row, PyObject** slots, Py_ssize_t i, object value) except -1:
    """Set the row's value number `i`."""
    Py_INCREF(value)
    return fill_slot(shape, row, slots, i, <PyObject*>value)


cdef RowShape make_shape(tuple names, list encoded)
