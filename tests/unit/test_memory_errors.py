"""When an allocation fails, the result is whole or a MemoryError: no crash, partial command or leak."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import redis_fastbatch

pytest.importorskip("_testcapi", reason="this Python was built without its test modules")

SCRIPT = Path(__file__).parents[1] / "support" / "nomemory.py"
CORE = Path(redis_fastbatch.__file__).parent / "_core"
COMPREHENSION = re.compile(r"""(\[|join\(|sum\()[^\]"'#]+ for .+ in """)
ONLY_A_NAME = re.compile(r"(\[|join\()(\w+|\(<Field>field\)\.wire) for .+ in ")
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
    "execute",
    "execute routed",
    "hset",
    "hset routed",
]


def test_no_list_in_the_core_is_made_in_a_way_that_frees_twice() -> None:
    """Cython 3.3.1 frees a new element twice if there is no memory to append it to the list of a comprehension.

    A loop with append() is right, and so is an element that is only a name. A generator in join() becomes a list.
    """
    found = []
    for source in sorted(CORE.rglob("*.pyx")):
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            if COMPREHENSION.search(line) and not ONLY_A_NAME.search(line):
                found.append(f"{source.name}:{number}: {line.strip()}")
    assert not found


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
