from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import Buffer

from redis_fastbatch._core.runtime.buffer import OutputBuffer

class PackedCommands(OutputBuffer):
    def __init__(self, pack_other: Callable[..., Iterable[Buffer]]) -> None: ...
    def pack(self, arguments: tuple[Any, ...]) -> None: ...

class CommandQueue:
    callbacks: dict[Any, Callable[..., Any] | None]
    undecoded: set[int] | None
    regular: bool
    caught: bool
    def __init__(
        self,
        commands: list[Any],
        find: Callable[[Any], Callable[..., Any] | None],
        never_decode: str,
        empty_response: str,
    ) -> None: ...
    def pack(self, into: PackedCommands) -> None: ...
    def call_back(
        self,
        replies: list[Any],
        ignored: frozenset[str],
        caught: type[Exception] | tuple[()],
        is_awaitable: Callable[[Any], bool] | None = None,
    ) -> list[int]: ...
