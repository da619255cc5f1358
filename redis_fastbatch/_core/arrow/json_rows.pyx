# cython: language_level=3
"""Encodes the rows of a table as JSON objects, in commands that store a row as a value."""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree

from redis_fastbatch._core.arrow.bulk cimport Literal, literal, put_literal
from redis_fastbatch._core.arrow.cells cimport refuse
from redis_fastbatch._core.arrow.columns cimport Column
from redis_fastbatch._core.arrow.json cimport json_name, json_refusal, put_json, put_json_fields
from redis_fastbatch._core.arrow.rows cimport TableWriter, check_row
from redis_fastbatch._core.arrow.stream cimport ArrowStream
from redis_fastbatch._core.resp.encoder cimport Command
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer

cdef enum:
    HEADER_ROOM = 32


cdef class JsonTableWriter(TableWriter):
    """A TableWriter whose values are JSON.

    Args:
        stream, command, layout: as for TableWriter.
        row_codec: decodes a value, for reports of failed rows.

    Raises:
        EncodeError: as from TableWriter, and for columns whose values cannot be JSON.
    """

    cdef Literal* names     # of the fields, as JSON, each with its colon and the comma before it
    cdef list owned

    def __init__(self, ArrowStream stream, Command command, *, row_codec, **layout):
        TableWriter.__init__(self, stream, command, tag=b"", row_codec=row_codec, **layout)
        cdef Py_ssize_t i
        self.owned = []
        self.names = <Literal*>PyMem_RawCalloc(self.n_values + 1, sizeof(Literal))
        if self.names == NULL:
            raise MemoryError()
        for i in range(self.n_values):
            reason = json_refusal(&self.columns[i])
            if reason is not None:
                refuse(&self.columns[i], reason)
            self.owned.append(b"%b%b:" % (b"," if i else b"", json_name(&self.columns[i])))
            self.names[i] = literal(self.owned[i])

    def __dealloc__(self):
        PyMem_RawFree(self.names)

    cdef char* put_fields(self, OutputBuffer out, char* p) except NULL nogil:
        check_row(self.stream, self.at())
        return put_json_fields(out, p, self.columns, self.names, self.n_values, self.at())

    cdef dict one_field(self, Py_ssize_t i):
        cdef OutputBuffer out = OutputBuffer()
        cdef Column* column = &self.columns[i]
        cdef bytes name = b"{" + json_name(column) + b":"
        cdef Literal start = literal(name)
        cdef char* p
        out.grow(self.row_room)
        p = put_literal(out, out.data, &start, HEADER_ROOM)
        p = put_json(out, p, column, self.at() + column.offset, HEADER_ROOM)
        p[0] = c'}'
        return self.decoded(out, p + 1)
