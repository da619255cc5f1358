"""What the caller asks of a batch, as one value that is checked once and passed through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis_fastbatch._engine.commands import SetOptions
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT
from redis_fastbatch._engine.outcome import OnError
from redis_fastbatch.report import OnChunk


@dataclass(slots=True)
class WriteOptions:
    """How a batch is written.

    Attributes:
        set: SET's options.
        chunk_size: the most items of a command.
        on_error: what to do with items that fail, as batch_set() takes it.
        on_chunk: is called with the ChunkStats of each settled chunk; None for no hook.
    """

    set: SetOptions
    chunk_size: int = COMMAND_ITEMS
    on_error: OnError = "raise"
    on_chunk: OnChunk | None = None


@dataclass(slots=True)
class ReadOptions:
    """How a batch is read.

    Attributes:
        default: stands for a key that is missing or whose value cannot be decoded.
        on_error: what to do with such values, as batch_get() takes it.
        limit: the most keys of a command.
        budget: after this many bytes of values, no further keys are taken.
    """

    default: Any = None
    on_error: OnError = "raise"
    limit: int = COMMAND_ITEMS
    budget: int = NO_LIMIT


@dataclass(frozen=True)
class ExecuteOptions:
    """How a batch of commands is sent.

    Attributes:
        chunk_size: the most commands that are sent at a time.
        on_error: what to do with commands that fail, as batch_execute() takes it.
        on_chunk: is called with the ChunkStats of each settled chunk; None for no hook.
        repeatable: whether commands of unknown outcome may be sent again.
    """

    chunk_size: int = COMMAND_ITEMS
    on_error: OnError = "raise"
    on_chunk: OnChunk | None = None
    repeatable: bool = False
