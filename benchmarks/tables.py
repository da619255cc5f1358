"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.measure import Ratio, Timing
from benchmarks.results import Cell, Results
from benchmarks.shapes import SHAPES
from benchmarks.targets import Outcome

OPERATION_TITLES = {
    "set": "writing",
    "set_ex": "writing with an expiry",
    "get": "reading",
    "encode": "encoding alone",
    "decode": "decoding alone",
}


def document(results: Results, outcomes: Sequence[Outcome]) -> str:
    """Return everything: circumstances, an overview, targets, and a table for each cell."""
    measured = [each for each in outcomes if each.met is not None]
    parts = [
        "# Results",
        circumstances(results.environment),
        "## Overview",
        overview(results),
        *(("## Targets", targets(measured)) if measured else ()),
        "## Each batch",
        *(cell(each) for each in results.cells),
    ]
    return "\n\n".join(parts) + "\n"


def circumstances(environment: dict[str, Any]) -> str:
    """Return machine and versions as a list."""
    lines = []
    for name, value in environment.items():
        if not value:
            continue
        shown = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        lines.append(f"- {name}: {shown}")
    return "\n".join(lines)


def overview(results: Results) -> str:
    """Return one line a cell: ours, and how many times faster it is than the fastest peer and than the floor."""
    rows = []
    for each in results.cells:
        ours, peer, floor, decoding = each.ours, each.fastest_peer(), each.floor, each.decoding_floor
        if ours is None:
            continue
        rows.append(
            (
                each.server,
                OPERATION_TITLES[each.operation],
                each.shape,
                f"{each.size:,}",
                _per_item(ours, each.size),
                _ratio(ours.times_faster_than(peer)) if peer else "",
                peer.name if peer else "",
                _ratio(ours.times_faster_than(floor)) if floor else "",
                _ratio(ours.times_faster_than(decoding)) if decoding else "",
            )
        )
    heads = (
        "server",
        "what",
        "values",
        "items",
        "ours, ns/item",
        "times faster than",
        "the best peer",
        "times faster than the floor",
        "and decoding",
    )
    return table(heads, rows, numbers={3, 4, 5, 7, 8})


def targets(outcomes: Sequence[Outcome]) -> str:
    """Return goal and measurement of each target figure."""
    rows = [(each.title, each.goal, each.measured, each.verdict) for each in outcomes]
    return table(("target", "goal", "measured", "met"), rows, numbers={1, 2})


def cell(cell: Cell) -> str:
    """Return all contenders of one cell, the fastest first."""
    ours = cell.ours
    rows: list[tuple[str, ...]] = []
    for timing in sorted(cell.timings, key=lambda timing: timing.median):
        low, high = timing.quartiles
        rows.append(
            (
                f"**{timing.name}**" if timing.role == "ours" else timing.name,
                _per_item(timing, cell.size),
                f"{timing.best / cell.size:,.0f}",
                f"{low / cell.size:,.0f} - {high / cell.size:,.0f}",
                f"{cell.size / timing.median * 1e9:,.0f}",
                _ratio(ours.times_faster_than(timing)) if ours else "",
            )
        )
    heads = ["", "ns/item", "min", "quartiles", "items/s", "how many times faster ours is (quartiles)"]
    return f"{_heading(cell)}\n\n{table(heads, rows, numbers=set(range(1, len(heads))))}"


def _heading(cell: Cell) -> str:
    what = f"{OPERATION_TITLES[cell.operation].capitalize()} {cell.size:,} x {SHAPES[cell.shape].title}"
    where = f" on {cell.server}" if cell.server != "none" else ""
    average = f"{cell.value_bytes / cell.size:,.0f} bytes a value"
    notes = [average, f"{len(cell.timings[0].samples)} rounds"]
    if cell.disturbance is not None:
        notes.append(f"other programs took {cell.disturbance:.0%} of the machine")
    return f"### {what}{where}\n\n{', '.join(notes)}."


def _per_item(timing: Timing, size: int) -> str:
    return f"{timing.median / size:,.0f}"


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]) -> str:
    lines = [heads, *rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(heads))]

    def shown(line: Sequence[str]) -> str:
        cells = (
            text.rjust(width) if column in numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        return f"| {' | '.join(cells)} |"

    rule = "|".join("-" * (width + 1) + (":" if column in numbers else "-") for column, width in enumerate(widths))
    return "\n".join([shown(heads), f"|{rule}|", *(shown(row) for row in rows)])
