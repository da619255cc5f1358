"""Time contenders against each other: in turns, in one process, against one server.

They take turns because the speed of a machine changes from minute to minute. Each round times every contender
once, in a new random order, so that a disturbance affects all of them: ratios hold where times do not.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns, process_time_ns
from typing import Any, Literal

from benchmarks.disturbance import Watch

Role = Literal["ours", "peer", "floor", "decoding floor"]

# A shorter run is repeated, and only the second one counts. The first is slower by a millisecond or two, because
# of what the contender before it left in the processor's caches and in the server's buffers.
LONG_NS = 200_000_000


class WrongResult(Exception):
    """A contender did not do the work that is timed."""


@dataclass(frozen=True)
class Contender:
    """A way to do the work that is timed.

    Attributes:
        run: the timed call; its result is dropped after the clock has stopped.
        check: does the same once, and raises when the outcome is wrong.
        before: called before each run, outside the timing.
    """

    name: str
    role: Role
    run: Callable[[], Any]
    check: Callable[[], None]
    before: Callable[[], object] = lambda: None


@dataclass
class Timing:
    """The measured times of a contender.

    Attributes:
        samples: nanoseconds of each round, in the rounds' order.
    """

    name: str
    role: Role
    samples: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return statistics.median(self.samples)

    @property
    def best(self) -> int:
        """The smallest sample."""
        return min(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile of the samples."""
        return _quartiles(self.samples)

    def times_faster_than(self, other: Timing) -> Ratio:
        """Return how many times faster this contender is than the other."""
        pairs = zip(self.samples, other.samples, strict=True)
        return Ratio(other.median / self.median, *_quartiles([theirs / own for own, theirs in pairs]))


@dataclass(frozen=True)
class Ratio:
    """The ratio of two contenders.

    Attributes:
        value: the ratio of their medians.
        low: the lower quartile of the rounds' ratios.
        high: the upper one.
    """

    value: float
    low: float
    high: float


def interleaved(contenders: Sequence[Contender], rounds: int, watch: Watch | None = None) -> list[Timing]:
    """Check every contender, then time them all in each round.

    The order of a round is random, but the same in every run of the benchmark. With a watch, rounds that other
    programs disturbed are measured again.
    """
    for contender in contenders:
        _checked(contender)
    timings = {contender.name: Timing(contender.name, contender.role) for contender in contenders}
    order = random.Random(rounds)
    for _ in range(rounds):
        drawn = order.sample(contenders, len(contenders))
        for contender, sample in zip(drawn, _undisturbed_round(drawn, watch), strict=True):
            timings[contender.name].samples.append(sample)
    return list(timings.values())


def in_turns(
    works: dict[str, Callable[[], Any]], rounds: int, before: Callable[[], object]
) -> dict[str, list[tuple[int, int]]]:
    """Do each work once in a round, in a random order that is the same in every run.

    Args:
        works: the timed calls, by name. Their results are dropped after the clocks have stopped.
        rounds: how many.
        before: called before each of them, outside the timing.

    Returns:
        For each of them the wall time and the CPU time of this process, in nanoseconds, in each round.
    """
    samples: dict[str, list[tuple[int, int]]] = {name: [] for name in works}
    order = random.Random(rounds)
    for _ in range(rounds):
        for name in order.sample(list(works), len(works)):
            before()
            samples[name].append(_both_clocks(works[name]))
    return samples


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Keep the benchmark's own objects out of the garbage collections that happen while contenders run.

    Otherwise the contenders would pay for traversing them, and those that leave the collector on would pay more.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _undisturbed_round(contenders: Sequence[Contender], watch: Watch | None) -> list[int]:
    while True:
        if watch:
            watch.begin()
        samples = [_settled(contender) for contender in contenders]
        if watch is None or watch.keep():
            return samples


def _settled(contender: Contender) -> int:
    elapsed = _timed(contender)
    return elapsed if elapsed > LONG_NS else _timed(contender)


def _checked(contender: Contender) -> None:
    try:
        contender.check()
    except Exception as error:
        raise WrongResult(f"{contender.name}: {error}") from error


def _timed(contender: Contender) -> int:
    contender.before()
    # So that no contender collects the garbage of the one before.
    gc.collect()
    start = perf_counter_ns()
    result = contender.run()
    elapsed = perf_counter_ns() - start
    del result
    return elapsed


def _both_clocks(work: Callable[[], Any]) -> tuple[int, int]:
    gc.collect()
    start, busy = perf_counter_ns(), process_time_ns()
    result = work()
    elapsed = perf_counter_ns() - start, process_time_ns() - busy
    del result
    return elapsed


def _quartiles(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) == 1:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high
