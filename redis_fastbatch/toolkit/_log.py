"""The drop-in's logging."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

logger = logging.getLogger("redis_fastbatch")

# Level names of redis-toolkit's logging that the standard library does not have.
_OTHER_LEVELS = {"TRACE": 5, "SUCCESS": 25}
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_DAYS_KEPT = 7

_files: set[str] = set()
_files_lock = threading.Lock()


def level_number(name: str | int) -> int:
    """Return the number of a log level; a number is returned as it is.

    An unknown name gives INFO, with a warning in the log.
    """
    if isinstance(name, int):
        return name
    upper = str(name).upper()
    number = _OTHER_LEVELS.get(upper, logging.getLevelName(upper))
    if not isinstance(number, int):
        logger.warning("there is no log level %r: INFO holds", name)
        return logging.INFO
    return number


def log_to_file(path: str, level: int) -> None:
    """Write the package's log to a file too, once for each path; the file rotates daily and seven are kept."""
    from logging.handlers import TimedRotatingFileHandler

    path = os.path.abspath(path)
    with _files_lock:
        if path not in _files:
            handler = TimedRotatingFileHandler(
                path, when="midnight", backupCount=_DAYS_KEPT, encoding="utf-8", delay=True
            )
            handler.setFormatter(logging.Formatter(_FORMAT))
            logger.addHandler(handler)
            _files.add(path)
        # Without its own level the logger drops INFO before any handler sees it.
        if logger.getEffectiveLevel() > level:
            logger.setLevel(level)


def shortened(value: Any, limit: int) -> str:
    """Return a value as text for a log line, shortened to about `limit` characters."""
    if isinstance(value, (bytes, bytearray)):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return f"<{len(value)} bytes>"
    elif isinstance(value, (dict, list, tuple)) and len(value) > limit:
        # Formatting it only to cut it off would waste time.
        return f"<{type(value).__name__} of {len(value)} items>"
    text = value if isinstance(value, str) else _described(value)
    return text if len(text) <= limit else f"{text[:limit]}... <{len(text)} characters>"


def _described(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} that has no text: {error}>"
