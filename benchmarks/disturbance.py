"""Detect when other programs keep the machine busy, so that such rounds are measured again."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

# Fields of the first line of /proc/stat, all of them times: user, nice, system, idle, iowait and more.
IDLE = slice(3, 5)
FIELDS = 8
# Fields of /proc/<pid>/stat after the name: user and system time of the process.
PROCESS_TIMES = slice(11, 13)

# The share of the machine's processor time that others may take in a round.
TOLERATED = 0.10
# Longest wait, after a disturbed round, for the other programs to finish.
PATIENCE_SECONDS = 15


class Watch:
    """Watches, round by round, for processor time that neither this process nor a server used. Linux only.

    Attributes:
        repeats: how many more rounds may be measured again; the rest are kept even if disturbed.
        shares: for each round that was kept, the share of the processor time that others took.
    """

    def __init__(self, server_pids: Sequence[int], repeats: int) -> None:
        self.repeats = repeats
        self.shares: list[float] = []
        self._pids = [os.getpid(), *server_pids]
        self._start = self._ticks()

    @property
    def share(self) -> float | None:
        """The mean share that other programs took; None where it is not known."""
        return statistics.fmean(self.shares) if self.shares else None

    def begin(self) -> None:
        """Begin a round."""
        self._start = self._ticks()

    def keep(self) -> bool:
        """End a round; return whether it counts."""
        share = self._share_since_start()
        if share is None:
            return True
        if share > TOLERATED and self.repeats > 0:
            self.repeats -= 1
            self._wait_for_quiet()
            return False
        self.shares.append(share)
        return True

    def _wait_for_quiet(self) -> None:
        for _ in range(PATIENCE_SECONDS):
            self.begin()
            time.sleep(1)
            share = self._share_since_start()
            if share is None or share < TOLERATED:
                return

    def _share_since_start(self) -> float | None:
        now = self._ticks()
        if self._start is None or now is None or now[0] == self._start[0]:
            return None
        total, others = (late - early for early, late in zip(self._start, now, strict=True))
        return max(0.0, others / total)

    def _ticks(self) -> tuple[int, int] | None:
        try:
            machine = [int(field) for field in Path("/proc/stat").read_text().split()[1 : FIELDS + 1]]
            ours = sum(_process_ticks(pid) for pid in self._pids)
        except (OSError, ValueError, IndexError):
            return None
        busy = sum(machine) - sum(machine[IDLE])
        return sum(machine), busy - ours


def _process_ticks(pid: int) -> int:
    # The name, in parentheses, may contain spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[PROCESS_TIMES]))
