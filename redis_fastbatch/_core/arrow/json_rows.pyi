from collections.abc import Callable
from typing import Any

from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._core.resp.encoder import Command

class JsonTableWriter(TableWriter):
    def __init__(
        self,
        stream: ArrowStream,
        command: Command,
        *,
        columns: list[str] | None,
        key: list[str | bytes],
        row_codec: Callable[[bytes], Any],
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None: ...
