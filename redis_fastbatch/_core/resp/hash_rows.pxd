# cython: language_level=3
from cpython.object cimport PyObject

from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.replies cimport ReplyReader
from redis_fastbatch._core.runtime.rows cimport RowShape, Shapes


cdef class Field:
    """A field's name, and how its values are read."""

    cdef bytes wire         # the name as the server has it
    cdef const char* data   # of `wire`
    cdef Py_ssize_t size
    cdef object name        # the name in the rows
    cdef int kind
    cdef ValueCodec codec


cdef class HashRows:
    """Reads the replies to HGETALL or HMGET as dicts."""

    cdef dict kinds             # by name on the wire: (kind, codec) of a field
    cdef int usual_kind         # of fields that are not in `kinds`
    cdef ValueCodec usual_codec
    cdef bint text_names
    cdef str encoding
    cdef str errors
    cdef bint is_utf8
    cdef Py_ssize_t max_value_size
    cdef bint holds_containers
    cdef dict known             # Fields by their name on the wire
    cdef list order             # the Fields of the last row, in its order
    cdef bint in_order          # the present row has had the same fields so far
    cdef list wanted            # the Fields of HMGET; None for HGETALL
    cdef Shapes shapes
    cdef tuple wanted_shape         # names of a template of the wanted fields; None if they cannot have one
    cdef RowShape shape
    cdef list shape_fields
    cdef bytes undecodable      # the value that could not be converted

    cdef Field new_field(self, bytes wire, object name)
    cdef Field field_at(self, Py_ssize_t i, const char* data, Py_ssize_t size)
    cdef object row(self, ReplyReader reader)
    cdef object all_fields(self, ReplyReader reader, Py_ssize_t count)
    cdef object some_fields(self, ReplyReader reader, Py_ssize_t count)
    cdef int learn(self, dict row) except -1
    cdef Py_ssize_t bulk(self, ReplyReader reader, Py_ssize_t* size) except -1
    cdef object convert(self, Field field, const char* data, Py_ssize_t size)
    cdef object converted(self, Field field, const char* data, Py_ssize_t size)
    cdef object text(self, const char* data, Py_ssize_t size)
    cdef object parsed(self, object reply)
    cdef object parsed_value(self, Field field, object value)
