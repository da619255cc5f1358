# cython: language_level=3
"""Dicts of one shape, made by copying a template.

The template is a dict whose keys table can be shared (PEP 412), as instances' `__dict__` are: a copy is then
one array of values, half the memory of a dict of its own, and no key is hashed or looked up. Rows are
ordinary dicts; one that gets another key later takes a table of its own, as CPython always does it.

Where the values stand inside a dict is CPython's private matter: it is used only where a look at a known
dict proves it right (`direct`), else values go in through PyDict_SetItem.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030A0000 && PY_VERSION_HEX < 0x030F0000 \\
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
    """A dict of `names` whose keys table its copies share, or a plain one where this Python does not."""
    for name in names:
        if name.startswith("__"):
            # As attributes, `__class__` and its like are no entries of the instance's dict.
            return dict(zip(names, values))
    row_type = type("row", (), {})
    for _ in range(2):
        # Python 3.10 settles a type's shared keys only after its first instance.
        instance = row_type()
        for name, value in zip(names, values):
            setattr(instance, name, value)
    shared = vars(instance).copy()
    return shared if tuple(shared) == names else dict(zip(names, values))


cdef bint slots_are_where_expected(tuple names):
    # A new object for each name. Not by a comprehension: those of Cython 3.3 free an item twice when there is no
    # memory to append it.
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


cdef class RowShape:
    def __dealloc__(self):
        PyMem_Free(self.keys)
        PyMem_Free(self.sizes)

    cdef dict blank(self):
        """A new dict with all keys, each None."""
        return PyDict_Copy(self.template)

    cdef PyObject** slots(self, dict row) noexcept:
        return fastbatch_dict_slots(row) if self.direct else NULL


cdef RowShape make_shape(tuple names, list encoded):
    """A shape of the str keys `names`, each of which MessagePack has as the bytes in `encoded`."""
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
