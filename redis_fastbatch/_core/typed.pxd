# cython: language_level=3
from redis_fastbatch._core.codec cimport ValueCodec


cdef class TypedValues(ValueCodec):
    cdef object to_bytes
    cdef object from_bytes
    cdef object convert
    cdef object expected
    cdef object check_nulls
    cdef object packed
    cdef object describe
    cdef object name

    cdef bint may_have_nan(self, object value) except -1
