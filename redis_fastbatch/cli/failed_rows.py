"""Handles rows that `load` cannot write: counts, stops or records them, as --on-error says, and names them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, Any

from redis_fastbatch.cli.common import A_NODE, CliError, comes_from_a_cluster, naming, plain
from redis_fastbatch.cli.json_lines import json_line
from redis_fastbatch.errors import EncodeError


class FailedRows:
    """Receives the rows that cannot be written.

    Args:
        mode: the value of --on-error.
        source: the file that is loaded.
        place: what the number of a failed row counts: "line", from 1, or "row", from 0.
        size: an earlier run has written this many bytes of the file that stay; what is after them was not settled.

    Attributes:
        stopped: whether a row failed and --on-error is stop. Then no more rows are read; rows in flight are
            completed.
    """

    def __init__(self, mode: str, source: Path | None = None, place: str = "row", size: int = 0) -> None:
        self.stopped = False
        self.place = place
        self.may_stop = mode == "stop"
        self._lock = threading.Lock()
        self._file: IO[str] | None = None
        if mode not in ("report", "stop"):
            if source is not None and source.is_file() and Path(mode).exists() and source.samefile(mode):
                raise CliError(f"--on-error {mode} is the file that is loaded: name another one")
            self._name = f"--on-error {mode}"
            with naming(self._name):
                if size:
                    os.truncate(mode, size)
                # JSON writes a lone surrogate as Python escapes it.
                mode_of_file = "a" if size else "w"
                self._file = Path(mode).open(mode_of_file, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def __call__(self, key: Any, value: Any, error: Exception) -> None:
        """Record a failed row.

        Args:
            key: its number or key.
            value: its fields, if they are known.
            error: why it failed.

        Raises:
            CliError: the server is a node of a cluster, where most rows would fail alike; or the file of failed
                rows cannot be written.
        """
        if comes_from_a_cluster(error):
            raise CliError(f"{reason_of(key, error, self.place)}: {A_NODE}")
        self.stopped = self.may_stop
        if self._file is not None:
            place = {self.place: key} if isinstance(key, int) else {"key": _text(key)}
            failed = {**place, "error": plain(error)}
            try:
                line = json_line({**failed, "item": value})
            except (TypeError, ValueError, RecursionError):
                # The failure is recorded even if JSON cannot hold the row.
                line = json_line({**failed, "item": repr(value)})
            with self._lock, naming(self._name):
                self._file.write(line)

    def size(self) -> int:
        """Return how many bytes the file of failed rows has; 0 if there is none."""
        if self._file is None:
            return 0
        with self._lock, naming(self._name):
            self._file.flush()
            return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file of failed rows."""
        if self._file is not None:
            with naming(self._name):
                self._file.close()


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def reason_of(key: Any, error: Exception, place: str) -> str:
    reason = plain(error)
    if reason.startswith(("row ", "line ")) or (isinstance(error, EncodeError) and error.key is not None):
        return reason
    return f"{place} {key}: {reason}" if isinstance(key, int) else f"key {key!r}: {reason}"
