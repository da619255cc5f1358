from collections.abc import Sequence
from typing import Any

from redis_fastbatch._core.runtime.buffer import OutputBuffer

class CommandRule:
    refusal: str | None
    refusals: dict[bytes, str] | None
    first: int
    last: int
    step: int
    counted: int
    after: bytes | None
    @property
    def has_keys(self) -> bool: ...
    def __init__(
        self,
        first: int = 1,
        last: int = 1,
        step: int = 1,
        *,
        counted: int = 0,
        after: bytes | None = None,
        refusal: str | None = None,
        refusals: dict[bytes, str] | None = None,
    ) -> None: ...

class CommandName:
    words: tuple[bytes, ...]
    rule: CommandRule | None
    def __init__(self, words: tuple[bytes, ...], rule: CommandRule | None = None) -> None: ...

class CommandEncoder:
    encoding: str
    errors: str
    def __init__(
        self, encoding: str = "utf-8", errors: str = "strict", rules: dict[bytes, CommandRule] | None = None
    ) -> None: ...
    def name(self, given: Any) -> CommandName: ...
    def argument(self, argument: Any, index: int) -> bytes: ...
    def append(self, out: OutputBuffer, command: Sequence[Any]) -> None: ...
    def pack(self, *command: Any) -> bytes: ...
