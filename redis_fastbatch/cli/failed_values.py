"""Handles what `dump` cannot write: values that fail, and keys that are not strings."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from redis_fastbatch._messages import format_key
from redis_fastbatch.cli.common import CliError, naming, plain
from redis_fastbatch.cli.json_lines import json_line
from redis_fastbatch.errors import DecodeError, EncodeError

SHOWN_FAILURES = 10
SHOWN_KEYS = 3
PLURALS = {"hash": "hashes"}


class Stopped(Exception):
    """Raised when a value fails and --on-error is stop."""


class FailedValues:
    """Counts what is not in the dump, and reports it as --on-error says.

    Args:
        mode: report, stop, or the file for failures.
        target: the file of the dump.

    Attributes:
        failed: the number of values that could not be written.
        left_out: the numbers of keys of other types, by type.
        gone: the number of keys that were deleted, or expired, before they were read.
    """

    def __init__(self, mode: str, target: str) -> None:
        self.failed = 0
        self.gone = 0
        self.left_out: dict[str, int] = {}
        self._first_keys: dict[str, list[str]] = {}
        self._first_reasons: list[str] = []
        self._stops = mode == "stop"
        self._tells = mode == "report"
        self._file: IO[bytes] | None = None
        if mode not in ("report", "stop"):
            if Path(mode).resolve() == Path(target).resolve():
                raise CliError(f"--on-error {mode} is the file of the dump: name another one")
            self._name = f"--on-error {mode}"
            with naming(self._name):
                self._file = Path(mode).open("wb")  # noqa: SIM115

    def add(self, key: bytes, raw: bytes | None, error: Exception) -> None:
        """Record a value that cannot be written.

        Args:
            key: its key.
            raw: its bytes on the server.
            error: why it cannot be written.

        Raises:
            Stopped: --on-error is stop.
        """
        self.failed += 1
        reason = _reason(error)
        self._write(key, reason, raw)
        line = f"key {_shown(key)}: {reason}"
        if self._stops:
            raise Stopped(line)
        if len(self._first_reasons) < SHOWN_FAILURES:
            self._first_reasons.append(line)

    def leave_out(self, key: bytes, kind: str) -> None:
        """Record a key that is not a string.

        Raises:
            Stopped: --on-error is stop.
        """
        reason = f"expected a string, found a {kind}: {_advice(kind)}"
        self._write(key, reason, None)
        if self._stops:
            raise Stopped(f"key {_shown(key)}: {reason}; leave it out with --match or --strings-only")
        self.left_out[kind] = self.left_out.get(kind, 0) + 1
        first = self._first_keys.setdefault(kind, [])
        if len(first) < SHOWN_KEYS:
            first.append(_shown(key))

    def _write(self, key: bytes, reason: str, raw: bytes | None) -> None:
        if self._file is None:
            return
        line: dict[str, Any] = {"key": key.decode("utf-8", "backslashreplace")}
        if _as_text(key) is None:
            line["key_base64"] = base64.b64encode(key).decode()
        line["error"] = reason
        line["raw_base64"] = None if raw is None else base64.b64encode(raw).decode()
        with naming(self._name):
            self._file.write(json_line(line).encode())

    def lines(self) -> Iterator[str]:
        """Yield the lines to print when the dump has ended."""
        if self._tells:
            yield from self._first_reasons
            if self.failed > len(self._first_reasons):
                yield f"... and {self.failed - len(self._first_reasons):,} more"
        for kind, count in sorted(self.left_out.items()):
            keys = ", ".join(self._first_keys[kind]) + (", ..." if count > SHOWN_KEYS else "")
            name = kind if count == 1 else PLURALS.get(kind, f"{kind}s")
            yield (
                f"left out: {count:,} {name} (key{'s' * (count > 1)} {keys}): {_advice(kind)}; "
                "--strings-only ignores other keys"
            )

    def summary(self) -> str:
        """Return the counts that follow the number of rows in the summary."""
        counts = (
            (self.failed, "failed"),
            (sum(self.left_out.values()), "left out"),
            (self.gone, "gone meanwhile"),
        )
        return "".join(f", {count:,} {words}" for count, words in counts if count)

    @property
    def any(self) -> bool:
        """Whether a value that was on the server is not in the dump."""
        return bool(self.failed or self.left_out)

    def close(self) -> None:
        """Close the file of failures."""
        if self._file is not None:
            with naming(self._name):
                self._file.close()


def _advice(kind: str) -> str:
    return "without --as value, dump writes hashes too" if kind == "hash" else "dump writes strings and hashes"


def _reason(error: Exception) -> str:
    # The message names the key already.
    reason = error.reason if isinstance(error, (DecodeError, EncodeError)) else plain(error)
    if isinstance(error, DecodeError) and error.offset:
        reason = f"{reason}, at byte {error.offset}"
    # Hints at codecs are for Python.
    return " ".join(reason.split()).replace('codec="json"', "--codec json")


def _as_text(key: bytes) -> str | None:
    with contextlib.suppress(UnicodeDecodeError):
        return key.decode()
    return None


def _shown(key: bytes) -> str:
    text = _as_text(key)
    return format_key(key if text is None else text)
