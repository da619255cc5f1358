from typing import Any

from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch.errors import EncodeError

class AnyCommand(Command):
    def __init__(self) -> None: ...

class CommandChunk(Chunk):
    def __init__(self, command: Command) -> None: ...

class CommandWriter(BatchWriter):
    position: int
    def __init__(
        self, commands: Any, encoder: CommandEncoder, *, max_items: int, max_bytes: int, position: int = 0
    ) -> None: ...

def command_failure(position: int, command: Any, error: Exception) -> tuple[int, Any, EncodeError]: ...

ANY_COMMAND: AnyCommand
