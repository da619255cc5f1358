from redis_fastbatch._core.arrow_rows import TableChunk, TableWriter
from redis_fastbatch._core.arrow_stream import ArrowStream
from redis_fastbatch._core.resp import Command

class HashChunk(TableChunk):
    def __init__(self, command: Command, commands: int) -> None: ...

class HashWriter(TableWriter):
    def __init__(
        self,
        stream: ArrowStream,
        *,
        columns: list[str] | None,
        key: list[str | bytes],
        expiry: tuple[bytes, bytes] | None,
        max_items: int,
        max_bytes: int,
    ) -> None: ...
