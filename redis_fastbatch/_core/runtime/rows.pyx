# cython: language_level=3
"""Makes dicts of one shape by copying a template.

The template is a dict whose table of keys is shared (PEP 412), as the `__dict__` of instances is. A copy is then
one array of values: it takes half the memory of another dict, and no key is hashed or looked up. Rows are ordinary
dicts: one that gets another key later gets its own table, as CPython always does.

Where a dict keeps its values is private to CPython. It is used only if a dict with known values proves it right
(`direct`). Otherwise values are stored by PyDict_SetItem.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject

cdef enum:
    FIRST_THRESHOLD = 4  # rows of one shape before it becomes a template

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030A0000 && PY_VERSION_HEX < 0x03100000 \\
        && !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED)
    static PyObject **fastbatch_dict_slots(PyObject *dict)
    {
        char *values = (char *)((PyDictObject *)dict)->ma_values;
        if (values == NULL)
            return NULL;
    #if PY_VERSION_HEX >= 0x030D0000
        values += sizeof(void *);  /* struct _dictvalues begins with four counters */
    #endif
        return (PyObject **)values;
    }
    #else
    static PyObject **fastbatch_dict_slots(PyObject *dict)
    {
        (void)dict;
        return NULL;
    }
    #endif
    """
    PyObject** fastbatch_dict_slots(object mapping)


cdef dict sharing_dict(tuple names, tuple values):
    """Return a dict of `names` whose copies share its table of keys; a plain one if this Python cannot."""
    for name in names:
        if name.startswith("__"):
            # Attributes such as `__class__` are not entries of the instance's dict.
            return dict(zip(names, values))
    row_type = type("row", (), {})
    for _ in range(2):
        # Python 3.10 fixes the shared keys of a type only after its first instance.
        instance = row_type()
        for name, value in zip(names, values):
            setattr(instance, name, value)
    shared = vars(instance).copy()
    return shared if tuple(shared) == names else dict(zip(names, values))


cdef bint slots_are_where_expected(tuple names):
    # A new object for each name. Not with a comprehension: Cython 3.3's free an item twice if there is no memory
    # to append it.
    cdef tuple witnesses = tuple(map(list, names))
    cdef dict probe = sharing_dict(names, witnesses).copy()
    cdef PyObject** slots = fastbatch_dict_slots(probe)
    cdef Py_ssize_t i
    if slots == NULL:
        return False
    for i in range(len(witnesses)):
        if slots[i] != <PyObject*>witnesses[i]:
            return False
    return True


def writes_directly():
    """Return whether values are stored where this version of Python keeps them, without PyDict_SetItem."""
    return slots_are_where_expected(("first", "second", "third"))


cdef class RowShape:
    def __dealloc__(self):
        PyMem_Free(self.keys)
        PyMem_Free(self.sizes)

    cdef dict blank(self):
        """Return a new dict with all keys; each value is None."""
        return PyDict_Copy(self.template)

    cdef PyObject** slots(self, dict row) noexcept:
        return fastbatch_dict_slots(row) if self.direct else NULL


cdef RowShape make_shape(tuple names, list encoded):
    """Return the shape of the str keys `names`. `encoded` has the bytes of each of them."""
    cdef RowShape shape = RowShape()
    cdef Py_ssize_t count = len(names)
    cdef Py_ssize_t i
    shape.keys = <const char**>PyMem_Malloc(count * sizeof(char*))
    shape.sizes = <Py_ssize_t*>PyMem_Malloc(count * sizeof(Py_ssize_t))
    if shape.keys == NULL or shape.sizes == NULL:
        raise MemoryError()
    for i in range(count):
        shape.keys[i] = PyBytes_AS_STRING(encoded[i])
        shape.sizes[i] = PyBytes_GET_SIZE(encoded[i])
    shape.count = count
    shape.names = names
    shape.encoded = encoded
    shape.template = sharing_dict(names, (None,) * count)
    shape.direct = slots_are_where_expected(names) and fastbatch_dict_slots(shape.template) != NULL
    return shape


cdef class Shapes:
    def __init__(self):
        self.slots = [None] * SHAPE_SLOTS
        for slot in range(SHAPE_SLOTS):
            self.threshold[slot] = FIRST_THRESHOLD

    cdef int learn(self, Py_ssize_t slot, dict row, list encoded) except -1:
        """Make a shape of the keys of a row, which are str; `encoded` has the bytes of each of them."""
        self.slots[slot] = make_shape(tuple(row), encoded)
        return 0

    cdef dict missed(self, RowShape shape, dict started, Py_ssize_t done):
        """Return a new dict of the first `done` values of a row that does not have the keys of the shape.

        A shape that no longer occurs is dropped.
        """
        cdef dict row = {}
        cdef Py_ssize_t i
        for i in range(done):
            row[shape.names[i]] = started[shape.names[i]]
        shape.misses += 1
        if shape.misses >= FIRST_THRESHOLD:
            self.forget(shape)
        return row

    cdef int forget(self, RowShape shape) except -1:
        """Drop a shape, and wait for more rows before its slot gets another."""
        cdef Py_ssize_t slot
        for slot in range(SHAPE_SLOTS):
            if self.slots[slot] is shape:
                self.slots[slot] = None
                self.seen[slot] = 0
                self.threshold[slot] = min(self.threshold[slot] * 4, 0x8000)
        return 0
