"""Checks of the arguments that the clients' methods take."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from operator import index
from typing import Any, SupportsIndex, TypeAlias

from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT, OnError
from redis_fastbatch.report import Progress, ProgressCallback, make_progress

Key: TypeAlias = Any


def source_of(keys: Iterable[Key]) -> Iterator[Key]:
    """The keys one after the other; one string is not taken for a batch of its characters."""
    if isinstance(keys, (str, bytes, bytearray)):
        raise TypeError(f"a batch of keys is expected, not one {type(keys).__name__}")
    return iter(keys)


def counted(name: str, number: int, least: int = 1) -> int:
    """A valid value for an argument that counts something."""
    if not isinstance(number, SupportsIndex):
        raise TypeError(f"{name} is an int, not {type(number).__name__}")
    if index(number) < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return index(number)


def checked_chunk_size(chunk_size: int | None, default: int = COMMAND_ITEMS) -> int:
    """A valid chunk_size, or the default for None."""
    if chunk_size is None:
        return default
    return min(counted("chunk_size", chunk_size), NO_LIMIT)


def check_hook(name: str, hook: object, unless: type | None = None) -> None:
    """Refuses what could not be called for a batch, or would be called and never awaited.

    Args:
        name: the argument's.
        hook: None is none.
        unless: what it may be instead.
    """
    if hook is None or (unless is not None and isinstance(hook, unless)):
        return
    if not callable(hook):
        raise TypeError(f"{name} is a callable, not {type(hook).__name__}")
    if inspect.iscoroutinefunction(hook):
        raise TypeError(
            f"{name} is called and not awaited: a plain function, which may create a task, not a coroutine's"
        )


def checked_on_error(on_error: OnError) -> OnError:
    """A valid on_error."""
    if on_error in ("raise", "report") or callable(on_error):
        check_hook("on_error", on_error, unless=str)
        return on_error
    raise ValueError(f'on_error is "raise", "report" or a callable, not {on_error!r}')


def progress_of(items: Any, progress: bool | ProgressCallback | None) -> Progress | None:
    """What hears of the progress of a batch of these items."""
    check_hook("progress", progress, unless=bool)
    return make_progress(progress, len(items) if isinstance(items, Mapping) else None)
