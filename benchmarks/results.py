"""Measured results, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Timing
from benchmarks.peers.base import OURS

DIRECTORY = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Cell:
    """One combination of server, operation, shape and size, with the times of all contenders.

    Attributes:
        server: a server's short name; "none" where no server takes part.
        operation: `set`, `set_ex`, `get`, `encode` or `decode`.
        value_bytes: size of all values of the batch as MessagePack, in bytes.
        disturbance: the share of the machine's processor time that other programs took during the measurement.
    """

    server: str
    operation: str
    shape: str
    size: int
    value_bytes: int
    timings: list[Timing]
    disturbance: float | None = None

    @property
    def ours(self) -> Timing | None:
        """The timing of FastBatch with its default codec."""
        return self.named(OURS)

    @property
    def floor(self) -> Timing | None:
        """The way of sending with the smallest median."""
        return _fastest(timing for timing in self.timings if timing.role == "floor")

    @property
    def decoding_floor(self) -> Timing | None:
        """The floor of a read with the decoding of the same values after it."""
        return _fastest(timing for timing in self.timings if timing.role == "decoding floor")

    def named(self, name: str) -> Timing | None:
        """Return the contender of that name."""
        return next((timing for timing in self.timings if timing.name == name), None)

    def fastest_peer(self, prefix: str = "") -> Timing | None:
        """Return the peer with the smallest median among those whose name begins with `prefix`."""
        return _fastest(
            timing for timing in self.timings if timing.role == "peer" and timing.name.startswith(prefix)
        )


@dataclass
class Results:
    """Cells, with the environment that they were measured in.

    Attributes:
        environment: machine, versions, commit and servers, as `environment.describe` has them.
    """

    environment: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)

    def find(self, server: str, operation: str, shape: str, size: int) -> Cell | None:
        """Return the cell of that combination, if it was measured."""
        wanted = (server, operation, shape, size)
        return next(
            (cell for cell in self.cells if (cell.server, cell.operation, cell.shape, cell.size) == wanted),
            None,
        )

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        content = {"environment": self.environment, "cells": [_cell_to_json(cell) for cell in self.cells]}
        _write_json(path, content)


def publish(name: str, content: dict[str, Any], document: str) -> None:
    """Write results/<name>.json with what was measured, and results/<name>.md with its tables."""
    path = DIRECTORY / f"{name}.json"
    _write_json(path, content)
    path.with_suffix(".md").write_text(document + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """Read a file that `save` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Results(content["environment"], [_cell_from_json(cell) for cell in content["cells"]])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _fastest(timings: Iterable[Timing]) -> Timing | None:
    return min(timings, key=lambda timing: timing.median, default=None)


def _cell_to_json(cell: Cell) -> dict[str, Any]:
    return {
        "server": cell.server,
        "operation": cell.operation,
        "shape": cell.shape,
        "size": cell.size,
        "value_bytes": cell.value_bytes,
        "disturbance": cell.disturbance,
        "contenders": [_timing_to_json(timing, cell.size) for timing in cell.timings],
    }


def _timing_to_json(timing: Timing, size: int) -> dict[str, Any]:
    low, high = timing.quartiles
    return {
        "name": timing.name,
        "role": timing.role,
        # For readers of the file without this package; `load` uses the samples.
        "ns_per_item": {
            "median": round(timing.median / size, 1),
            "min": round(timing.best / size, 1),
            "quartiles": [round(low / size, 1), round(high / size, 1)],
        },
        "samples_ns": timing.samples,
    }


def _cell_from_json(cell: dict[str, Any]) -> Cell:
    timings = [Timing(each["name"], each["role"], each["samples_ns"]) for each in cell.pop("contenders")]
    return Cell(**cell, timings=timings)
