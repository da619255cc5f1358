"""Draw ours, the peers and the floor from a results file.

`python -m benchmarks.chart results.json chart.png` draws all peers. With `--small` it draws the README's chart:
four peers, writing and reading side by side.
"""

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

COLOURS = {"ours": "#c0392b", "peer": "#8395a7", "floor": "#c3a36b"}
BRACKETS = "In brackets: how many times faster redis_fastbatch is."
NOTE_COLOUR = "#57606f"
FLOOR = "the floor: a bare socket"
# The small chart's peers, from top to bottom, with their labels. The floor and ours stand above them.
SMALL_PEERS = {
    "redis-py mset/mget + msgspec": "redis-py, MSET/MGET + msgspec",
    "valkey-glide mset/mget + msgspec": "valkey-glide, MSET/MGET + msgspec",
    "redis-py pipeline + msgpack": "redis-py, pipeline + msgpack",
    "redis-toolkit 0.4.0": "redis-toolkit 0.4.0",
}
SMALL_OPERATIONS = ("set", "get")
SMALL_INCHES = (9.0, 2.75)
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
    if options.small:
        draw_small(measured, cells, options.picture)
    else:
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
    figure.text(0.01, 0.003, f"{BRACKETS} {_circumstances(measured, cells[0])}", fontsize=7, color=NOTE_COLOUR)
    figure.tight_layout(rect=(0, 0.015, 1, 1))
    figure.savefig(picture, dpi=150)
    pyplot.close(figure)


def draw_small(measured: Results, cells: Sequence[Cell], picture: Path) -> None:
    """Draw ours, the floor and four well-known peers: writing and reading side by side, on one linear scale."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [cell for cell in cells if cell.operation in SMALL_OPERATIONS]
    figure, axes = pyplot.subplots(1, len(shown), figsize=SMALL_INCHES, sharex=True, sharey=True, squeeze=False)
    for axis, cell in zip(axes[0], shown, strict=True):
        _small_panel(axis, cell)
    first = shown[0]
    title = f"{first.size:,} x {SHAPES[first.shape].title}: nanoseconds per item"
    figure.text(0.01, 0.925, title, fontsize=10, fontweight="bold")
    figure.text(0.01, 0.855, f"Shorter is better. {BRACKETS}", fontsize=8.5)
    figure.text(0.01, 0.02, _circumstances(measured, first), fontsize=7, color=NOTE_COLOUR)
    figure.tight_layout(rect=(0, 0.04, 1, 0.86), w_pad=2)
    figure.savefig(picture, dpi=150)
    pyplot.close(figure)


def _small_panel(axis: Axes, cell: Cell) -> None:
    floor, ours = cell.floor, cell.ours
    peers = [(cell.named(name), label) for name, label in SMALL_PEERS.items()]
    rows = [(floor, FLOOR), (ours, OURS), *peers]
    measured = [(timing, label) for timing, label in rows if timing]
    nanoseconds = [timing.median / cell.size for timing, _ in measured]
    places = range(len(measured))
    axis.barh(places, nanoseconds, height=0.72, color=[COLOURS[timing.role] for timing, _ in measured])
    axis.set_yticks(places, [label for _, label in measured], fontsize=9)
    # Both panels share the axis: inverting it twice would turn it back.
    axis.set_ylim(len(measured) - 0.4, -0.6)
    # The panel on the right has no labels: it shares those of the first.
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == OURS else "normal")
    axis.margins(x=0.25)
    for place, (timing, _), value in zip(places, measured, nanoseconds, strict=True):
        _annotate(axis, (value, place), _label(cell, timing, value), timing.role)
    axis.set_title(OPERATION_TITLES[cell.operation].capitalize(), fontsize=9.5, loc="left")
    axis.locator_params(axis="x", nbins=4)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)


def _annotate(axis: Axes, position: tuple[float, float], text: str, role: str) -> None:
    axis.annotate(
        text,
        position,
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        fontweight="bold" if role == "ours" else "normal",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart")
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--server", default="valkey")
    parser.add_argument("--shape", default="dict5")
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--small", action="store_true", help="four peers, writing and reading side by side")
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
        _annotate(axis, (value, place), _label(cell, timing, value), timing.role)
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
    return f"{nanoseconds:,.0f}  ({ours.times_faster_than(timing).value:.1f}x)"


def _circumstances(measured: Results, cell: Cell) -> str:
    environment = measured.environment
    server = environment["servers"].get(cell.server, "")
    return (
        f"{server}, {environment['python']}, {environment['processor']}; medians of "
        f"{len(cell.timings[0].samples)} interleaved rounds over loopback; commit {environment['commit']}"
    )


if __name__ == "__main__":
    main()
