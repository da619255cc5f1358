"""Small Arrow values from Python ones.

pa.array() and pa.scalar() import pandas if it is installed, which takes longer than loading a small file.
"""

from __future__ import annotations

from array import array
from typing import Any

import pyarrow as pa


def integers(*values: int) -> Any:
    """Return an array of int32."""
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(array("i", values))])


def text_scalar(text: str) -> Any:
    """Return a scalar of type string."""
    data = text.encode()
    offsets = integers(0, len(data)).buffers()[1]
    return pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(data)])[0]


def null_scalar(kind: Any) -> Any:
    """Return a null of an Arrow type."""
    return pa.nulls(1, kind)[0]
