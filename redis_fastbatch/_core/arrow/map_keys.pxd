# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.columns cimport Column, MapKey


cdef int more_keys(Column* c, int64_t count) except -1 nogil
cdef int fill_word(MapKey* found, Column* c, int64_t at, const char* written) except -1 nogil
cdef int check_keys(Column* c, const char* data, int64_t count) except -1 nogil
