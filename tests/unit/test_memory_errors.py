"""When an allocation fails, the result is whole or a MemoryError: no crash, partial command or leak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("_testcapi", reason="this Python was built without its test modules")

SCRIPT = Path(__file__).parents[1] / "support" / "nomemory.py"
OPERATIONS = [
    "msgpack dumps",
    "msgpack dumps odd",
    "msgpack dumps big",
    "msgpack dumps default",
    "msgpack dumps refused",
    "msgpack loads",
    "msgpack loads learnt",
    "msgpack loads odd",
    "msgpack loads refused",
    "toolkit dumps",
    "toolkit loads",
    "toolkit-msgpack dumps",
    "json dumps",
    "json dumps slowly",
    "json dumps refused",
    "json loads",
    "json loads learnt",
    "compressed dumps",
    "compressed loads",
    "raw dumps",
    "reader values",
    "reader statuses",
    "fill MSET",
    "fill SET",
    "extract",
    "fill SET with expiries",
    "extract SET with expiries",
    "hash rows",
    "fill HSET refused",
    "hash fields",
    "hash columns",
]


@pytest.mark.full
@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_allocation_may_fail(operation: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), operation],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    if sys.version_info < (3, 11) and "Cannot recover from MemoryErrors" in ended.stderr:
        pytest.skip("CPython 3.10 aborts if it has no memory for a MemoryError")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "allocations failed" in ended.stdout
