# cython: language_level=3
from libc.stdint cimport int64_t

from redis_fastbatch._core.arrow.bulk cimport Literal
from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer


cdef char* put_json(OutputBuffer out, char* p, Column* c, int64_t at, Py_ssize_t room) except NULL nogil
cdef bytes json_name(Column* c)
cdef str json_refusal(Column* c)
cdef char* put_json_fields(
    OutputBuffer out, char* p, Column* columns, Literal* names, Py_ssize_t count, int64_t at
) except NULL nogil
