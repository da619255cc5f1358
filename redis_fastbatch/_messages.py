"""Parts of messages: how keys, items and exceptions are named in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_KEY_SHOWN = 100

MOST_WORDS_SHOWN = 20


def format_key(key: Any) -> str:
    """Return a key as error messages show it. A long one is cut short."""
    if isinstance(key, (str, bytes, bytearray)) and len(key) > LONGEST_KEY_SHOWN:
        return f"{key[:LONGEST_KEY_SHOWN]!r}... (length {len(key)})"
    try:
        return repr(key)
    except Exception as error:
        # repr() fails for an int of thousands of digits, and may fail for a user's class.
        return f"<{type(key).__name__} whose repr() raises {type(error).__name__}>"


def format_command(command: Any) -> str:
    """Return a command, a tuple or list of its name and arguments, as error messages show it: cut short."""
    if not isinstance(command, (tuple, list)):
        return format_key(command)[:LONGEST_KEY_SHOWN]
    text = " ".join(map(_format_word, command[:MOST_WORDS_SHOWN]))
    if len(command) <= MOST_WORDS_SHOWN and len(text) <= LONGEST_KEY_SHOWN:
        return text
    return f"{text[:LONGEST_KEY_SHOWN]}..."


def _format_word(word: Any) -> str:
    if isinstance(word, bytes):
        text = word[: LONGEST_KEY_SHOWN + 1].decode("utf-8", "replace")
        return text if text.isprintable() and "\ufffd" not in text else format_key(word)
    return word[: LONGEST_KEY_SHOWN + 1] if isinstance(word, str) and word.isprintable() else format_key(word)


def not_a_pair(item: Any) -> str:
    """Return the message for an item of a batch that is not a pair of key and value."""
    kind = type(item).__name__
    if isinstance(item, (tuple, list)):
        kind = f"{kind} of {len(item)}"
    hint = ""
    if isinstance(item, Mapping):
        hint = '; for rows that are dicts, pass pairs such as ((row["id"], row) for row in rows)'
    return f"expected (key, value) as a tuple or list of two, got {kind} {format_key(item):.100}{hint}"


def format_error(error: BaseException) -> str:
    """Return the type of an exception and what it says. Without its type a KeyError would be only a key."""
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
