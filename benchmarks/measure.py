"""Times contenders against each other: in turns, in one process, against one server.

In turns, because a machine is not as fast now as it was a minute ago: each round times every contender
once, in an order drawn anew, so that what disturbs one disturbs all, and ratios hold where times do not.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Literal

from benchmarks.disturbance import Watch

Role = Literal["ours", "peer", "floor"]

# A run that is not longer than this is done again, and only the second one counts: the first is slowed down by
# what the contender before it has left in the processors' caches and in the server's buffers. That is a
# millisecond or two, which longer runs do not notice.
LONG_NS = 200_000_000


class WrongResult(Exception):
    """A contender did not do the work that it is to be timed for."""


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Attributes:
        run: what is timed; its result is dropped after the clock has stopped.
        check: does the same once, and raises when the outcome is not what it must be.
        before: called before each run, outside the timing.
    """

    name: str
    role: Role
    run: Callable[[], Any]
    check: Callable[[], None]
    before: Callable[[], object] = lambda: None


@dataclass
class Timing:
    """What was measured of a contender.

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
        """Between these lies the middle half of the samples."""
        return _quartiles(self.samples)

    def times_faster_than(self, other: Timing) -> Ratio:
        """How many times as long the other takes."""
        pairs = zip(self.samples, other.samples, strict=True)
        return Ratio(other.median / self.median, *_quartiles([theirs / own for own, theirs in pairs]))


@dataclass(frozen=True)
class Ratio:
    """How two contenders compare.

    Attributes:
        value: the ratio of their medians.
        low: the lower quartile of the rounds' ratios.
        high: the upper one.
    """

    value: float
    low: float
    high: float


def interleaved(contenders: Sequence[Contender], rounds: int, watch: Watch | None = None) -> list[Timing]:
    """Checks every contender, then times them all in each round.

    The order of a round is random, but the same in every run of the benchmark. With a watch, rounds that other
    programs have disturbed are measured again.
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


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Keeps the benchmark's own objects out of the garbage collections that happen while contenders run.

    They would otherwise pay for traversing them, and more often those who let the collector work.
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
    # Nobody is to clear up after the one before.
    gc.collect()
    start = perf_counter_ns()
    result = contender.run()
    elapsed = perf_counter_ns() - start
    del result
    return elapsed


def _quartiles(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) == 1:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high
