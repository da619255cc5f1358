"""Draw ours, the peers and the floor from a results file: `python -m benchmarks.chart results.json chart.png`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

from benchmarks import results
from benchmarks.measure import Timing
from benchmarks.peers.base import OURS
from benchmarks.results import Cell, Results
from benchmarks.shapes import SHAPES
from benchmarks.tables import OPERATION_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"ours": "#c0392b", "peer": "#8395a7", "floor": "#d5dbe1"}
FLOOR = "the floor: a bare socket"
# Beyond this ratio the shortest bar would be too small to see.
LINEAR_UP_TO = 25
INCHES_A_BAR = 0.27
INCHES_A_PANEL = 1.0
INCHES_ACROSS = 9.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the operations of one server, shape and size."""
    options = _parser().parse_args(arguments)
    measured = results.load(options.results)
    cells = _cells(measured, options.server, options.shape, options.size)
    if not cells:
        raise SystemExit(f"nothing measured of {options.shape} x {options.size} on {options.server}")
    draw(measured, cells, options.picture)


def draw(measured: Results, cells: Sequence[Cell], picture: Path) -> None:
    """Draw a panel for each cell, one above the other."""
    # Before pyplot is imported: there may be no window.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = [_bars(cell) for cell in cells]
    heights = [len(each) * INCHES_A_BAR + INCHES_A_PANEL for each in bars]
    figure, axes = pyplot.subplots(
        len(cells), 1, figsize=(INCHES_ACROSS, sum(heights)), height_ratios=heights, squeeze=False
    )
    for axis, cell, each in zip(axes[:, 0], cells, bars, strict=True):
        _panel(axis, cell, each)
    figure.text(0.01, 0.003, _circumstances(measured, cells[0]), fontsize=7, color="#57606f")
    figure.tight_layout(rect=(0, 0.015, 1, 1))
    figure.savefig(picture, dpi=150)
    pyplot.close(figure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart")
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--server", default="valkey")
    parser.add_argument("--shape", default="dict5")
    parser.add_argument("--size", type=int, default=10_000)
    return parser


def _cells(measured: Results, server: str, shape: str, size: int) -> list[Cell]:
    found = (measured.find(server, operation, shape, size) for operation in OPERATION_TITLES)
    return [cell for cell in found if cell]


def _bars(cell: Cell) -> list[Timing]:
    """Return the contenders, the fastest first, with one way of sending for the floor and one codec for ours."""
    floor = cell.floor
    shown = [each for each in cell.timings if each.role == "peer" or each.name == OURS or each is floor]
    return sorted(shown, key=lambda timing: timing.median)


def _panel(axis: Axes, cell: Cell, bars: Sequence[Timing]) -> None:
    nanoseconds = [timing.median / cell.size for timing in bars]
    places = range(len(bars))
    axis.barh(places, nanoseconds, color=[COLOURS[timing.role] for timing in bars])
    axis.set_yticks(places, [FLOOR if timing.role == "floor" else timing.name for timing in bars], fontsize=8)
    axis.invert_yaxis()
    logarithmic = max(nanoseconds) > LINEAR_UP_TO * min(nanoseconds)
    if logarithmic:
        axis.set_xscale("log")
    axis.margins(x=0.2)
    if logarithmic:
        # A logarithmic axis has no natural start. A power of ten is the clearest choice.
        axis.set_xlim(left=10 ** math.floor(math.log10(min(nanoseconds))))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    for place, timing, value in zip(places, bars, nanoseconds, strict=True):
        axis.annotate(
            _label(cell, timing, value),
            (value, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            fontweight="bold" if timing.role == "ours" else "normal",
        )
    title = f"{OPERATION_TITLES[cell.operation].capitalize()} {cell.size:,} x {SHAPES[cell.shape].title}"
    axis.set_title(
        f"{title}: nanoseconds per item{', logarithmic' if logarithmic else ''}", fontsize=9, loc="left"
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=8)


def _label(cell: Cell, timing: Timing, nanoseconds: float) -> str:
    ours = cell.ours
    if ours is None or timing.role != "peer":
        return f"{nanoseconds:,.0f}"
    return f"{nanoseconds:,.0f}  ({ours.times_faster_than(timing).value:.1f}x ours)"


def _circumstances(measured: Results, cell: Cell) -> str:
    environment = measured.environment
    server = environment["servers"].get(cell.server, "")
    return (
        f"{server}, {environment['python']}, {environment['processor']}; medians of "
        f"{len(cell.timings[0].samples)} interleaved rounds over loopback; commit {environment['commit']}"
    )


if __name__ == "__main__":
    main()
