"""Files that say how far a command has come, so that it can be started again after it was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from redis_fastbatch.cli.common import CliError, naming


class StateFile:
    """The file of `--resume`.

    Args:
        path: its path; None keeps no state.
        job: what the command does. A file of another job is refused.

    Attributes:
        found: the state that an earlier run has left; None if this run starts from the beginning.
    """

    def __init__(self, path: str | None, job: dict[str, Any]) -> None:
        self._path = None if path is None else Path(path)
        self._job = job
        self.found: dict[str, Any] | None = None
        if self._path is not None and self._path.exists():
            self.found = self._read(self._path)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            job, state = content["job"], content["state"]
        except (OSError, ValueError, KeyError, TypeError):
            raise CliError(
                f"--resume {path}: expected a file of an earlier run, found another: name another one"
            ) from None
        if not isinstance(state, dict):
            raise CliError(f"--resume {path}: expected the state of a run, found {type(state).__name__}")
        for name, value in self._job.items():
            if job.get(name) != value:
                raise CliError(
                    f"--resume {path} belongs to a run with {name} {job.get(name)!r}, and this one has {value!r}: "
                    "give the same options, or remove the file to start from the beginning"
                )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file in one step: it holds the old state or the new one, never a part."""
        if self._path is not None:
            new = self._path.with_name(f"{self._path.name}.new")
            with naming(f"--resume {self._path}"):
                new.write_text(json.dumps({"job": self._job, "state": state}), encoding="utf-8")
                os.replace(new, self._path)

    def remove(self) -> None:
        """Remove the file, because the job is done."""
        if self._path is not None:
            with naming(f"--resume {self._path}"):
                self._path.unlink(missing_ok=True)
