"""What the core does with CPython's private layout, in each version that has wheels."""

from __future__ import annotations

import sys
import sysconfig

import pytest

from redis_fastbatch._core.resp.replies import new_dict
from redis_fastbatch._core.runtime.rows import writes_directly

NEWEST = (3, 15)

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython"
    or sys.version_info[:2] > NEWEST
    or bool(sysconfig.get_config_var("Py_GIL_DISABLED") or sysconfig.get_config_var("Py_DEBUG"))
    or sys.platform == "win32",
    reason="this Python's layout is not used",
)


def test_values_of_rows_are_stored_directly() -> None:
    assert writes_directly()


@pytest.mark.parametrize("size", [100, 80_000, 100_000, 300_000])
def test_a_dict_is_made_with_room_for_its_keys(size: int) -> None:
    made = new_dict(size, "a key")
    room = sys.getsizeof(made)
    assert made == {}
    made.update((str(i), i) for i in range(size))
    assert sys.getsizeof(made) == room
    assert list(made) == [str(i) for i in range(size)]
