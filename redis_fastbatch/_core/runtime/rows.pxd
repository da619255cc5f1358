# cython: language_level=3
from cpython.dict cimport PyDict_SetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t

cdef extern from "Python.h":
    void PyObject_GC_Track(object container)
    bint PyObject_GC_IsTracked(object container)

cdef enum:
    SHAPE_SLOTS = 64
    WIDEST_ROW = 30     # CPython shares keys tables of up to 30 keys


cdef class RowShape:
    """The keys of a map seen before, and a dict of them to copy instead of building one key by key."""

    cdef Py_ssize_t count
    cdef Py_ssize_t misses      # rows since the last hit
    cdef tuple names
    cdef dict template
    cdef bint direct            # `slots` may be used on copies of the template
    cdef const char** keys      # each key as it is encoded, with all bytes between the values
    cdef Py_ssize_t* sizes
    cdef list encoded           # owns what `keys` points to

    cdef dict blank(self)
    cdef PyObject** slots(self, dict row) noexcept


cdef RowShape make_shape(tuple names, list encoded)


cdef class Shapes:
    """The shapes of the rows that a reader has met. A row's first key chooses the slot of its shape."""

    cdef list slots                              # of RowShape or None
    cdef unsigned short[SHAPE_SLOTS] seen        # rows read key by key since a shape was last made
    cdef unsigned short[SHAPE_SLOTS] threshold   # `seen` at which a shape is made

    cdef int learn(self, Py_ssize_t slot, dict row, list encoded) except -1
    cdef dict missed(self, RowShape shape, dict started, Py_ssize_t done)
    cdef int forget(self, RowShape shape) except -1


cdef inline Py_ssize_t slot_of(uint32_t head, Py_ssize_t salt) noexcept:
    """Return the slot for rows whose first key begins with these bytes."""
    return ((head ^ <uint32_t>salt * 0x01000193) * <uint32_t>0x9E3779B1) >> 26


cdef inline bint is_worth_learning(Shapes shapes, Py_ssize_t slot) noexcept:
    """Count a row that matches no shape. Return whether enough have come to make a shape of this one."""
    shapes.seen[slot] += 1
    if shapes.seen[slot] < shapes.threshold[slot]:
        return False
    shapes.seen[slot] = 0
    return True


cdef inline int fill_slot(RowShape shape, dict row, PyObject** slots, Py_ssize_t i, PyObject* value) except -1:
    """Set the row's value number `i`, and take over the reference to it. `slots` are shape.slots(row)."""
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


cdef inline int finish_row(RowShape shape, dict row, PyObject** slots, bint holds_containers) except -1:
    """Let the garbage collector see a row whose values are all set, if they can be part of a cycle."""
    if holds_containers and slots != NULL and not PyObject_GC_IsTracked(row):
        PyObject_GC_Track(row)
    shape.misses = 0
    return 0
