"""Checks of the arguments of the clients' methods.

They refuse arguments that are easily passed by mistake, with a message that says what to pass. Without them a
table would be a batch of its column names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from operator import index
from typing import Any

from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch._messages import format_key
from redis_fastbatch.report import Progress, ProgressCallback, make_progress

_GENERATOR = type(_ for _ in ())
_USUAL = (list, tuple, dict, set, frozenset)

_TEXTS = (str, bytes, bytearray, memoryview)

_TO_LIST = ("to_pylist", "tolist", "to_list")
"""Methods that return a column's values as Python's types: of pyarrow, of numpy and pandas, of polars."""


def counted(name: str, number: int, least: int = 1) -> int:
    """Return an argument that counts something as an int; refuse other types and too small numbers."""
    if not hasattr(number, "__index__"):
        raise TypeError(f"{name} must be an int, got {type(number).__name__} {number!r:.100}")
    if index(number) < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return index(number)


def checked_chunk_size(chunk_size: int | None, default: int = COMMAND_ITEMS) -> int:
    """Return a valid chunk_size, or the default for None."""
    if chunk_size is None:
        return default
    return min(counted("chunk_size", chunk_size), NO_LIMIT)


def check_hook(name: str, hook: object, unless: type | None = None) -> None:
    """Refuse a hook that cannot be called, or that would be called and never awaited.

    Args:
        name: the name of the argument.
        hook: the hook; None for no hook.
        unless: another type that the argument may have.
    """
    if hook is None or (unless is not None and isinstance(hook, unless)):
        return
    if not callable(hook):
        also = "a bool or " if unless is bool else ""
        raise TypeError(f"{name} must be {also}a callable, got {type(hook).__name__} {format_key(hook):.100}")
    if inspect.iscoroutinefunction(hook):
        raise TypeError(f"{name} must be a plain function, which may create a task, got a coroutine function")


def checked_on_error(on_error: OnError) -> OnError:
    """Return a valid on_error."""
    if on_error in ("raise", "report") or callable(on_error):
        check_hook("on_error", on_error, unless=str)
        return on_error
    raise ValueError(f'on_error must be "raise", "report" or a callable, got {on_error!r}')


def progress_of(items: Any, progress: bool | ProgressCallback | None) -> Progress | None:
    """Return the display of progress for a batch of these items."""
    check_hook("progress", progress, unless=bool)
    return make_progress(progress, len(items) if isinstance(items, Mapping) else None)


def checked_url(url: str) -> str:
    """Return a URL for redis-py, which checks its scheme."""
    if not isinstance(url, str):
        raise TypeError(f'the URL must be a str such as "redis://localhost:6379/0", got {type(url).__name__}')
    return url


def checked_items(items: Any, *, asynchronous: bool = False, method: str = "batch_set") -> Any:
    """Return the items of a batch unchanged; refuse anything that is not a batch of items.

    Args:
        items: a mapping or an iterable of pairs; for the asyncio client also an asynchronous iterable.
        asynchronous: whether the asyncio client is the caller.
        method: the name of the calling method, for messages.

    Raises:
        TypeError: `items` is something else. The message says what to pass.
    """
    kind = type(items)
    if kind in _USUAL or kind is _GENERATOR or isinstance(items, Mapping):
        return items
    expected = "items must be a mapping or an iterable of (key, value) pairs"
    if isinstance(items, _TEXTS):
        raise TypeError(f"{expected}, got one {_name(kind)} {format_key(items)}")
    if _is_table(kind):
        raise TypeError(f"{expected}, got a table ({_name(kind)}): batch_set_table() writes its rows")
    if _column_method(kind) is not None:
        advice = "pass zip(keys, values)"
        if hasattr(kind, "items"):
            advice = "pass its items(), which are pairs of index and value, or zip(keys, values)"
        raise TypeError(f"{expected}, got one column ({_name(kind)}): {advice}")
    _check_iterable(items, expected, method, asynchronous)
    return items


def checked_keys(keys: Any, *, asynchronous: bool = False, method: str = "batch_get") -> Any:
    """Return the keys of a batch; a column becomes a list of Python's types.

    Args:
        keys: an iterable; for the asyncio client also an asynchronous iterable.
        asynchronous: whether the asyncio client is the caller.
        method: the name of the calling method, for messages.

    Raises:
        TypeError: `keys` is something else. The message says what to pass.
    """
    kind = type(keys)
    if kind in _USUAL or kind is _GENERATOR:
        return keys
    expected = "keys must be an iterable of keys"
    if isinstance(keys, _TEXTS):
        raise TypeError(f"{expected}, got one {_name(kind)} {format_key(keys)}: pass [key] for a batch of one key")
    if _is_table(kind):
        raise TypeError(f'{expected}, got a table ({_name(kind)}): pass a column of it, such as table["id"]')
    to_list = _column_method(kind)
    if to_list is not None:
        values = getattr(keys, to_list)()
        if not isinstance(values, list):
            # A numpy array without dimensions holds one value.
            raise TypeError(f"{expected}, got one value ({_name(kind)}): pass [{format_key(values)}]")
        return values
    _check_iterable(keys, expected, method, asynchronous)
    return keys


def checked_commands(commands: Any, *, asynchronous: bool = False, method: str = "batch_execute") -> Any:
    """Return the commands of a batch unchanged; refuse anything that is not a batch of commands.

    Args:
        commands: an iterable of tuples or lists; for the asyncio client also an asynchronous iterable.
        asynchronous: whether the asyncio client is the caller.
        method: the name of the calling method, for messages.

    Raises:
        TypeError: `commands` is something else. The message says what to pass.
    """
    kind = type(commands)
    expected = 'commands must be an iterable of tuples or lists such as ("INCR", "visits")'
    if isinstance(commands, (*_TEXTS, Mapping)):
        raise TypeError(f"{expected}, got one {_name(kind)} {format_key(commands):.100}")
    if isinstance(commands, (tuple, list)) and commands and isinstance(commands[0], _TEXTS):
        raise TypeError(f"{expected}, got one command {format_key(commands):.100}: pass [command]")
    if _is_table(kind):
        raise TypeError(f"{expected}, got a table ({_name(kind)}): batch_execute_table() takes it")
    _check_iterable(commands, expected, method, asynchronous)
    return commands


def _is_table(kind: type) -> bool:
    """Return whether objects of a type are tables, or streams of record batches."""
    if hasattr(kind, "__dataframe__") or kind.__name__ == "LazyFrame":
        return True
    return hasattr(kind, "__arrow_c_stream__") and _column_method(kind) is None


def _column_method(kind: type) -> str | None:
    """Return the name of the method that converts an array or a Series to a list; None for other types."""
    return next((name for name in _TO_LIST if hasattr(kind, name)), None)


def _check_iterable(given: Any, expected: str, method: str, asynchronous: bool) -> None:
    kind = type(given)
    if hasattr(kind, "__aiter__"):
        if asynchronous:
            return
        if not hasattr(kind, "__iter__"):
            raise TypeError(
                f"{expected}, got an asynchronous iterable ({_name(kind)}): AsyncFastBatch.{method}() takes it"
            )
    elif inspect.isawaitable(given):
        raise TypeError(f"{expected}, got a {_name(kind)}: await it, and pass its result")
    elif inspect.isroutine(given):
        raise TypeError(f"{expected}, got a {_name(kind)}: call it, and pass what it returns")
    elif not hasattr(kind, "__iter__") and not hasattr(kind, "__getitem__"):
        found = "None" if given is None else f"{_name(kind)} {format_key(given):.100}"
        raise TypeError(f"{expected}, got {found}")


def _name(kind: type) -> str:
    """Return a type's name, with its package unless it is built in."""
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"
