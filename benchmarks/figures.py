"""Put measured figures into the documentation: `python -m benchmarks figures`.

A page holds its figures between two comments, `<!-- figures: NAME -->` and `<!-- end of figures -->`. NAME is one
of TABLES. The table between them is made from the results file of that name. A test compares them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import calls as small
from benchmarks import commands as any_commands
from benchmarks import hashes as rows_as_hashes
from benchmarks import pipelines as piped
from benchmarks import results, tables

ROOT = Path(__file__).parent.parent
PAGES = (Path("docs", "performance.md"), Path("benchmarks", "README.md"))

_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options."""


def run(_: argparse.Namespace) -> int:
    """Write the figures into all pages; return the exit code."""
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{page}: written")
    return 0


def filled(page: str) -> str:
    """Return a page with the figures of the results files."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_table(block[2])}\n\n{block[3]}", page)


def blocks(page: str) -> list[str]:
    """Return the names of the figures that a page holds."""
    return [name for _, name, _ in _BLOCK.findall(page)]


def _table(name: str) -> str:
    environment = _content(name)["environment"]
    return f"{TABLES[name]()}\n\nFrom `benchmarks/results/{name}.json`, commit {environment['commit']}."


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((results.DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _overview(name: str) -> str:
    return tables.overview(results.load(results.DIRECTORY / f"{name}.json"))


def _calls() -> str:
    measured = _content("calls")["calls"]
    columns = [
        (f"{title}{kind}", operation, ours, peer)
        for kind, ours, peer in (
            ("", small.OURS, small.ONE_COMMAND),
            (", asyncio", small.OURS_ASYNC, small.ONE_COMMAND_ASYNC),
        )
        for title, operation in (("set", "set"), ("set with ex", "set_ex"), ("get", "get"))
    ]
    lines = [
        (f"{int(size):,}", *(_small(measured[operation][size], *pair) for _, operation, *pair in columns))
        for size in measured["set"]
    ]
    heads = ("items", *(title for title, *_ in columns))
    return tables.table(heads, lines, numbers=set(range(len(heads))))


def _small(found: dict[str, dict[str, float]], ours: str, peer: str) -> str:
    """Return how many times faster ours is: client CPU, and wall time in brackets.

    Where redis-py's single command was measured, it is the peer.
    """
    if peer == small.ONE_COMMAND and small.SINGLE in found:
        peer = small.SINGLE
    if ours not in found or peer not in found:
        return ""
    return _ratios(found, ours, peer, "cpu_p50", "wall_p50")


def _ratios(found: dict[str, dict[str, float]], ours: str, peer: str, first: str, second: str) -> str:
    one, other = (found[peer][figure] / found[ours][figure] for figure in (first, second))
    return f"{one:.2f} ({other:.2f})"


def _large(name: str, ours: str) -> str:
    """Return how many times faster ours is than each peer: wall time, and client CPU in brackets."""
    measured = _content(name)[name]
    peers = dict.fromkeys(peer for found in measured.values() for peer in found if peer != ours)
    lines = [
        (what, *(_ratios(found, ours, peer, "wall", "cpu") if peer in found else "" for peer in peers))
        for what, found in measured.items()
    ]
    return tables.table(("", *peers), lines, numbers=set(range(1, len(peers) + 1)))


def _pipelines() -> str:
    measured = _content("pipelines")["pipelines"]
    pairs = (("", piped.OURS, piped.THEIRS), (", asyncio", piped.OURS_ASYNC, piped.THEIRS_ASYNC))
    lines = [
        (f"{operation}{kind}", *(_small(found, *pair) for found in by_size.values()))
        for kind, *pair in pairs
        for operation, by_size in measured.items()
    ]
    sizes = [f"{int(size):,}" for size in next(iter(measured.values()))]
    return tables.table(("commands", *sizes), lines, numbers=set(range(1, len(sizes) + 1)))


TABLES: dict[str, Callable[[], str]] = {
    "engine": lambda: _overview("engine"),
    "cluster": lambda: _overview("cluster"),
    "aio": lambda: _overview("aio"),
    "network": lambda: _overview("network"),
    "table": lambda: _overview("table"),
    "calls": _calls,
    "commands": lambda: _large("commands", any_commands.OURS),
    "hashes": lambda: _large("hashes", rows_as_hashes.OURS),
    "pipelines": _pipelines,
}
"""Makes each of the figures."""
