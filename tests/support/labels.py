"""Names of parameters in test ids."""

from __future__ import annotations

import re


def label(value: object) -> str:
    """Return a value's ASCII repr without memory addresses: each worker of pytest-xdist must find the same ids."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))
