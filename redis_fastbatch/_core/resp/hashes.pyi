from typing import Any

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch._core.resp.expiry import ItemExpiry
from redis_fastbatch._core.resp.replies import ReplyReader
from redis_fastbatch._core.resp.routed import RoutedWriter, Router

class HashCommand(Command):
    def __init__(self, name: bytes, expiry: ItemExpiry | None = None) -> None: ...

HSET: HashCommand

class MappingChunk(Chunk):
    most_fields: int
    def __init__(self, command: Command, encoder: CommandEncoder, codec: ValueCodec | None) -> None: ...

class ExpireChunk(Chunk):
    hashes: Chunk
    expire: Command
    written: list[int]
    most_fields: int
    def __init__(self, expire: Command, hashes: Chunk, written: list[int]) -> None: ...

class MappingWriter(BatchWriter):
    batches: int
    rows_left: int
    def __init__(
        self,
        items: Any,
        command: Command,
        codec: ValueCodec | None,
        *,
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None: ...

class RoutedMappingWriter(RoutedWriter):
    def __init__(
        self,
        items: Any,
        command: Command,
        codec: ValueCodec | None,
        router: Router,
        *,
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> None: ...

def all_counts(reader: ReplyReader, count: int, most: int) -> bool: ...
def counts(reader: Any, limit: int, first: int, others: list[tuple[int, Any]], most: int) -> int: ...
