from redis_fastbatch._core.arrow.chunk import TableChunk
from redis_fastbatch._core.arrow.rows import TableWriter
from redis_fastbatch._core.arrow.stream import ArrowStream
from redis_fastbatch._core.resp.encoder import Command

class HashChunk(TableChunk):
    most_fields: int
    def __init__(self, command: Command) -> None: ...

class HashWriter(TableWriter):
    def __init__(
        self,
        stream: ArrowStream,
        command: Command,
        *,
        columns: list[str] | None,
        key: list[str | bytes],
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None: ...
