"""Prints at the end how many faults were injected."""

from __future__ import annotations

from typing import Any

from faults import bench


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if bench.injected:
        terminalreporter.write_line(f"faults injected: {bench.injected:,}")
