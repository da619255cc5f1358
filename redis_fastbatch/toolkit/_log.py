"""What the drop-in logs, and where."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

logger = logging.getLogger("redis_fastbatch")

# Names that the toolkit's logging knows and the standard library does not, at the level they have there.
_OTHER_LEVELS = {"TRACE": 5, "SUCCESS": 25}
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_DAYS_KEPT = 7

_files: set[str] = set()
_files_lock = threading.Lock()


def level_number(name: str | int) -> int:
    """The number of a level's name; a number as it is, though validate() wants a name.

    Where there is no such level it is INFO's, and the log says so.
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
    """Sends the package's log to a file as well, once for each path; a new one every day, seven are kept."""
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
        # A logger without a level of its own drops INFO before any handler sees it.
        if logger.getEffectiveLevel() > level:
            logger.setLevel(level)


def shortened(value: Any, limit: int) -> str:
    """A value as a log line shows it, of about `limit` characters at most."""
    if isinstance(value, (bytes, bytearray)):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return f"<{len(value)} bytes>"
    elif isinstance(value, (dict, list, tuple)) and len(value) > limit:
        # Not worth spelling out only to cut it off.
        return f"<{type(value).__name__} of {len(value)} items>"
    text = value if isinstance(value, str) else _described(value)
    return text if len(text) <= limit else f"{text[:limit]}... <{len(text)} characters>"


def _described(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} that has no text: {error}>"
