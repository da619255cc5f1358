"""How busy the machine was with other things meanwhile: figures from a busy machine are to be taken again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# Of the first line of /proc/stat, whose fields are user, nice, system, idle, iowait and more, all of them
# time.
IDLE = slice(3, 5)
FIELDS = 8
# Of /proc/<pid>/stat behind the name: user and system time of the process.
PROCESS_TIMES = slice(11, 13)


class Disturbance:
    """Watches from its making on, all processes but some. Linux only; elsewhere it knows nothing."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._start = self._ticks()

    def share(self) -> float | None:
        """Returns the share of the machine's processor time that others took, between 0 and 1."""
        if self._start is None:
            return None
        now = self._ticks()
        if now is None or now[0] == self._start[0]:
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
    # The name, in parentheses, may have spaces in it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[PROCESS_TIMES]))


def watch(*server_pids: int) -> Disturbance:
    """Begins to watch for what is neither this process nor one of the servers."""
    return Disturbance([os.getpid(), *server_pids])
