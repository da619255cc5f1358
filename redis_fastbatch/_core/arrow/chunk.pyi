from collections.abc import Callable
from typing import Any

from redis_fastbatch._core.resp.encoder import Chunk, Command

class TableChunk(Chunk):
    def __init__(self, command: Command, row_codec: Callable[[bytes], Any]) -> None: ...
    def row_value(self, wanted: int) -> Any: ...
