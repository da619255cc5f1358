"""Names parameters in the ids of tests."""

from __future__ import annotations

import re


def label(value: object) -> str:
    """Return a value's ASCII repr without memory addresses. The workers of pytest-xdist must get the same ids."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))
