# cython: language_level=3
"""Reads the Arrow C stream in the PyCapsule that a table's `__arrow_c_stream__()` returns
(https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html)."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.errno cimport EINVAL, ENOMEM, ENOSYS
from libc.stdint cimport int64_t
from libc.string cimport memset

from redis_fastbatch._core.arrow.abi cimport ArrowArrayStream, ArrowSchema

import os
import re

cdef object UNNAMED_INDEX = re.compile(r"__index_level_\d+__")

cdef const char* STREAM_CAPSULE = b"arrow_array_stream"


cdef bint ends_with_interrupt(str reason) except -1:
    """Return whether the text ends with a traceback of KeyboardInterrupt; the word alone can be in any text."""
    cdef list lines = reason.splitlines()
    if len(lines) < 2 or lines[len(lines) - 1] != "KeyboardInterrupt":
        return False
    return lines[len(lines) - 2].startswith("  ")


cdef class ArrowStream:
    """A table's record batches and their schema.

    Args:
        table: an object with `__arrow_c_stream__()`.

    Raises:
        TypeError: it does not have this method.
        ValueError: its stream does not have record batches, or was consumed before.
    """

    def __cinit__(self):
        memset(&self.stream, 0, sizeof(self.stream))
        memset(&self.schema, 0, sizeof(self.schema))
        memset(&self.batch, 0, sizeof(self.batch))

    def __init__(self, table):
        cdef ArrowArrayStream* given
        cdef int code
        export = getattr(table, "__arrow_c_stream__", None)
        if export is None:
            raise TypeError(
                "a table must have __arrow_c_stream__(), as pyarrow's Table and RecordBatchReader, polars' "
                f"and pandas' DataFrame and DuckDB's results do, got {type(table).__name__}"
            )
        capsule = export()
        if not PyCapsule_IsValid(capsule, STREAM_CAPSULE):
            raise TypeError(
                f"{type(table).__name__}.__arrow_c_stream__() must return a PyCapsule arrow_array_stream, "
                f"got {type(capsule).__name__}"
            )
        given = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, STREAM_CAPSULE)
        if given.release == NULL:
            raise ValueError("the table's stream must be new, but it was consumed before")
        # Move it, as the interface specifies: from here on this object releases it.
        self.stream = given[0]
        given.release = NULL
        with nogil:
            code = self.stream.get_schema(&self.stream, &self.schema)
        if code:
            self.failed(code, "while its schema was read")
        if self.schema.format == NULL or self.schema.format != b"+s":
            raise ValueError("the stream must have record batches, found single columns")

    def __dealloc__(self):
        if self.batch.release != NULL:
            self.batch.release(&self.batch)
        if self.schema.release != NULL:
            self.schema.release(&self.schema)
        if self.stream.release != NULL:
            self.stream.release(&self.stream)

    def column_names(self):
        """Return the names of the table's columns, in its order."""
        cdef ArrowSchema* schema = &self.schema
        cdef int64_t i
        cdef list names = []
        for i in range(schema.n_children):
            name = b"" if schema.children[i].name == NULL else <bytes>schema.children[i].name
            names.append(name.decode("utf-8", "surrogateescape"))
        return names

    def field_names(self):
        """Return the columns of a row's value for `columns=None`.

        An index of pandas without a name is left out. pyarrow makes a column of such an index, but not of a
        RangeIndex, so that a filter of the rows could change the columns.
        """
        return [name for name in self.column_names() if not UNNAMED_INDEX.fullmatch(name)]

    cdef int failed(self, int code, str when) except -1:
        cdef const char* text = self.stream.get_last_error(&self.stream)
        reason = os.strerror(code) if text == NULL else (<bytes>text).decode("utf-8", "replace")
        message = f"the table's stream failed {when}: {reason}"
        # A stream that runs Python code, such as pyarrow's of a generator, reports an exception only as text.
        if ends_with_interrupt(reason):
            raise KeyboardInterrupt
        if code == EINVAL:
            raise ValueError(message)
        if code == ENOMEM:
            raise MemoryError(message)
        if code == ENOSYS:
            raise NotImplementedError(message)
        raise OSError(code, message)

    cdef int release_batch(self) except -1:
        if self.batch.release != NULL:
            with nogil:
                self.batch.release(&self.batch)
            self.batch.release = NULL
        return 0

    cdef bint next_batch(self) except -1:
        """Release the batch and get the next one; return False at the end."""
        cdef int code
        self.release_batch()
        with nogil:
            code = self.stream.get_next(&self.stream, &self.batch)
        if code:
            self.batch.release = NULL
            self.failed(code, "while its next rows were read")
        return self.batch.release != NULL
