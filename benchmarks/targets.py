"""The project's target figures, and whether they are met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.measure import Ratio, Timing
from benchmarks.peers.base import DROP_IN, OURS
from benchmarks.results import Cell, Results

TOOLKIT = "redis-toolkit"
REDIS_PY = "redis-py"
REDIS_PY_PIPELINE = "redis-py pipeline"
MSGSPEC = "redis-py mset/mget + msgspec"
MSGSPEC_CHUNKED = "redis-py mset/mget + msgspec, chunked"

# Choose the contender of a cell that ours is compared with.
Rival = Callable[[Cell], Timing | None]


@dataclass(frozen=True)
class Outcome:
    """A target with its measured figure."""

    title: str
    goal: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """Whether the target is met, in a word."""
        return {True: "yes", False: "**no**", None: "not measured"}[self.met]


@dataclass(frozen=True)
class Faster:
    """A target: ours is at least `goal` times faster than a peer, in one cell."""

    server: str
    operation: str
    shape: str
    size: int
    against: str
    rival: Rival
    goal: float
    ours: str = OURS

    def outcome(self, results: Results) -> Outcome:
        """Compare the medians with the goal."""
        title = f"{_what(self.ours, self.operation)}, {self.shape} x {self.size:,}, {self.server}: {self.against}"
        goal = f">= {self.goal:g}x"
        ratio = self._ratio(results)
        if ratio is None:
            return Outcome(title, goal, "", None)
        measured = f"{ratio.value:.2f}x ({ratio.low:.2f} - {ratio.high:.2f})"
        return Outcome(title, goal, measured, ratio.value >= self.goal)

    def _ratio(self, results: Results) -> Ratio | None:
        cell = results.find(self.server, self.operation, self.shape, self.size)
        ours = cell.named(self.ours) if cell else None
        rival = self.rival(cell) if cell else None
        return ours.times_faster_than(rival) if ours and rival else None


@dataclass(frozen=True)
class NearFloor:
    """A target: ours has at least `goal` of the floor's speed, in one cell."""

    server: str
    operation: str
    shape: str
    size: int
    goal: float

    def outcome(self, results: Results) -> Outcome:
        """Compare the medians with the goal."""
        title = f"{_what(OURS, self.operation)}, {self.shape} x {self.size:,}, {self.server}: the floor"
        goal = f">= {self.goal:g}x"
        cell = results.find(self.server, self.operation, self.shape, self.size)
        if cell is None or cell.ours is None or cell.floor is None:
            return Outcome(title, goal, "", None)
        ratio = cell.ours.times_faster_than(cell.floor)
        measured = f"{ratio.value:.2f}x ({ratio.low:.2f} - {ratio.high:.2f})"
        return Outcome(title, goal, measured, ratio.value >= self.goal)


def outcomes(results: Results) -> list[Outcome]:
    """Return each target with its measured figure."""
    batches = [cell for cell in results.cells if cell.server != "none"]
    codec = [cell for cell in results.cells if cell.server == "none"]
    return [
        *(target.outcome(results) for target in _targets()),
        _nowhere_slower("every batch", batches),
        _nowhere_slower("every shape, encoding and decoding alone", codec),
    ]


def _targets() -> Iterator[Faster | NearFloor]:
    yield from _dict5_targets()
    yield from _codec_targets()
    yield from _flight_targets()
    yield from _drop_in_targets()


def _dict5_targets() -> Iterator[Faster | NearFloor]:
    ten, hundred = 10_000, 100_000
    best = _fastest(REDIS_PY)
    pipeline = _fastest(REDIS_PY_PIPELINE)
    yield Faster("valkey", "set", "dict5", ten, "redis-toolkit", _fastest(TOOLKIT), 40)
    yield Faster("valkey", "set", "dict5", ten, "the best redis-py code", best, 4)
    yield NearFloor("valkey", "set", "dict5", ten, 0.87)
    yield NearFloor("valkey", "set", "dict5", hundred, 0.87)
    yield Faster("valkey", "set_ex", "dict5", ten, "redis-py's pipeline with ex", pipeline, 25)
    yield Faster("redis7", "set_ex", "dict5", ten, "redis-py's pipeline with ex", pipeline, 7)
    yield NearFloor("redis7", "set_ex", "dict5", ten, 0.87)
    yield Faster("valkey", "get", "dict5", ten, "redis-toolkit", _fastest(TOOLKIT), 8)
    for size, goal in ((ten, 2), (hundred, 3)):
        yield Faster("valkey", "get", "dict5", size, "mget + msgspec", _named(MSGSPEC), goal)
        yield Faster("valkey", "get", "dict5", size, "mget + msgspec, chunked", _named(MSGSPEC_CHUNKED), goal)


def _codec_targets() -> Iterator[Faster]:
    for operation in ("encode", "decode"):
        yield Faster("none", operation, "dict5", 10_000, "msgspec", _named("msgspec"), 1.5)


def _flight_targets() -> Iterator[Faster]:
    chunked = _named(MSGSPEC_CHUNKED)
    for size in (10_000, 100_000):
        yield Faster("valkey", "set", "flight", size, "redis-toolkit", _fastest(TOOLKIT), 28)
        yield Faster("valkey", "set", "flight", size, "mset + msgspec, chunked", chunked, 4)
        yield Faster("valkey", "get", "flight", size, "redis-toolkit", _fastest(TOOLKIT), 5)
        yield Faster("valkey", "get", "flight", size, "mget + msgspec, chunked", chunked, 1.3)


def _drop_in_targets() -> Iterator[Faster]:
    goals = {DROP_IN: (12, 6), f"{DROP_IN} codec=toolkit-msgpack": (35, 8)}
    for ours, (write, read) in goals.items():
        for operation, goal in (("set", write), ("get", read)):
            rival = _fastest(TOOLKIT)
            yield Faster("valkey", operation, "dict5", 10_000, "redis-toolkit", rival, goal, ours)


def _nowhere_slower(title: str, cells: Sequence[Cell]) -> Outcome:
    """Return the cell with our smallest lead over its fastest peer."""
    title, goal = f"{title}: the fastest peer", ">= 1x"
    ratios = [
        (cell.ours.times_faster_than(peer).value, f"{cell.operation} {cell.shape} x {cell.size:,}, {cell.server}")
        for cell in cells
        if cell.ours and (peer := cell.fastest_peer())
    ]
    if not ratios:
        return Outcome(title, goal, "", None)
    worst, where = min(ratios)
    return Outcome(title, goal, f"{worst:.2f}x ({where})", worst >= 1)


def _fastest(prefix: str) -> Rival:
    return lambda cell: cell.fastest_peer(prefix)


def _named(name: str) -> Rival:
    return lambda cell: cell.named(name)


def _what(ours: str, operation: str) -> str:
    return operation if ours == OURS else f"{operation} by {ours.removeprefix(OURS).lstrip('.')}"
