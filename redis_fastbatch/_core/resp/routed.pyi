from collections.abc import Iterable, Sequence
from typing import Any

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command

class AskingCommand(Command):
    def __init__(self, command: Command) -> None: ...

def slot_of_key(key: Any, encoding: str, errors: str) -> int: ...

class Router:
    def __init__(self, owners: Sequence[int]) -> None: ...
    def load(self, owners: Sequence[int]) -> None: ...
    def owner(self, slot: int) -> int: ...
    def move(self, slot: int, node: int) -> None: ...
    def split(
        self, chunk: Chunk, command: Command, positions: Iterable[int] | None = None
    ) -> dict[int, Chunk]: ...

class RoutedWriter(BatchWriter):
    taken: int
    def __init__(
        self,
        items: Any,
        command: Command,
        codec: ValueCodec,
        router: Router,
        *,
        max_items: int,
        max_bytes: int,
        encoding: str = "utf-8",
        errors: str = "strict",
        found: dict[Any, Any] | None = None,
        default: Any = None,
        order: list[Any] | None = None,
    ) -> None: ...
    def advance(self, most: int) -> int: ...
    def sealed(self, node: int) -> tuple[Chunk, int] | None: ...
    def leave(self, node: int) -> None: ...
    def begun(self) -> list[tuple[int, int]]: ...
    def recycle(self, chunk: Chunk) -> None: ...

class RoutedCommandWriter(RoutedWriter):
    first: int
    def __init__(
        self,
        commands: Any,
        encoder: CommandEncoder,
        router: Router,
        *,
        max_items: int,
        max_bytes: int,
        position: int = 0,
    ) -> None: ...
