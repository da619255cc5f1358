from collections.abc import Iterable
from typing import Any

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.expiry import ItemExpiry
from redis_fastbatch._core.runtime.buffer import OutputBuffer

IN_MEMORY: frozenset[type]

class Command:
    name: bytes
    many: bool
    counted: bool
    with_values: bool
    tail: tuple[bytes, ...]
    expiry: ItemExpiry | None
    usual_reply: bytes
    def __init__(
        self,
        name: bytes,
        *,
        many: bool,
        counted: bool = False,
        with_values: bool = True,
        tail: tuple[bytes, ...] = (),
        expiry: ItemExpiry | None = None,
    ) -> None: ...

class Chunk(OutputBuffer):
    command: Command
    sealed: bool
    def __init__(self, command: Command) -> None: ...
    def restart(self, command: Command) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def keys(self) -> list[Any]: ...
    @property
    def values(self) -> list[Any]: ...
    @property
    def replies(self) -> int: ...
    def seal(self) -> None: ...
    def extract(self, command: Command, positions: Iterable[int] | None = None) -> Chunk: ...

class SourcePending(Exception): ...

class ItemSource:
    def __init__(self, items: Any, pairs: bool = True) -> None: ...

class BatchWriter:
    command: Command
    codec: ValueCodec
    failures: list[tuple[Any, Any, Exception]]
    in_memory: bool
    exhausted: bool
    source_pending: bool
    source_error: Exception | None
    max_items: int
    max_bytes: int
    def __init__(
        self,
        items: Any,
        command: Command,
        codec: ValueCodec,
        *,
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None: ...
    def blank(self) -> Chunk: ...
    def use(self, command: Command) -> None: ...
    def fill(self, chunk: Chunk) -> None: ...
    def fill_some(self, chunk: Chunk, most: int) -> None: ...
