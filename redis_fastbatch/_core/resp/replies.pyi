from collections.abc import Callable
from typing import Any

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.runtime.buffer import ReceiveBuffer

class ErrorReply(Exception): ...
class ProtocolError(Exception): ...

class ReplyFormat:
    explain: Callable[[ErrorReply], Exception]
    def __init__(
        self, explain: Callable[[ErrorReply], Exception], encoding: str | None = None, errors: str = "strict"
    ) -> None: ...
    def decoded(self, reply: Any) -> Any: ...

def new_dict(size: int) -> dict[Any, Any]: ...

class ReplyReader(ReceiveBuffer):
    pushes: list[Any]
    elements: int
    def __init__(
        self,
        max_value_size: int = 0,
        *,
        make_parser: Callable[..., Any],
        protocol_error: type[Exception] = ...,
    ) -> None: ...
    def finished(self) -> bool: ...
    def reply(self) -> tuple[Any] | None: ...
    def statuses(
        self, limit: int, first: int, non_ok_replies: list[tuple[int, Any]], queued: bool = True
    ) -> int: ...
    def skip(self, limit: int, first: int, errors: list[tuple[int, Any]]) -> int: ...
    def replies(self, limit: int, out: list[Any], errors: list[int], form: ReplyFormat) -> int: ...
    def array(self, expected: int) -> bool | ErrorReply: ...
    def values(
        self,
        keys: list[Any],
        done: int,
        codec: ValueCodec,
        default: Any,
        out: dict[Any, Any] | list[tuple[Any, Any]],
        failures: list[tuple[Any, bytes | None, Exception]],
        most: int = ...,
    ) -> int: ...
