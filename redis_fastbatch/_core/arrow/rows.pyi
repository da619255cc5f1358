from collections.abc import Callable
from typing import Any

from redis_fastbatch._core.arrow.chunk import TableChunk
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._core.resp.encoder import Command

class TableWriter:
    command: Command
    failures: list[tuple[int, Any, Exception]]
    exhausted: bool
    source_pending: bool
    in_memory: bool
    source_error: Exception | None
    batches: int
    rows_left: int
    max_items: int
    max_bytes: int
    def __init__(
        self,
        stream: ArrowStream,
        command: Command,
        *,
        columns: list[str] | None,
        key: list[str | bytes],
        tag: bytes,
        row_codec: Callable[[bytes], Any],
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None: ...
    def blank(self) -> TableChunk: ...
    def use(self, command: Command) -> None: ...
    def fill(self, chunk: TableChunk) -> None: ...
    def fill_some(self, chunk: TableChunk, most: int) -> None: ...
