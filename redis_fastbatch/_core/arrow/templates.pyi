from typing import Any

from redis_fastbatch._core.arrow.chunk import TableChunk
from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._core.resp.commands import CommandName

class TemplateChunk(TableChunk):
    def __init__(self, name: CommandName) -> None: ...

class TemplateWriter(TableWriter):
    def __init__(
        self,
        stream: ArrowStream,
        name: CommandName,
        arguments: list[tuple[str, str, list[Any]]],
        *,
        columns: list[str],
        used: list[str],
        routed: bool,
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None: ...
