from collections.abc import Callable, Container
from typing import Any

from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader

class ObjectReader(ReplyReader):
    errors: int
    def __init__(self, *, make_parser: Callable[..., Any], protocol_error: type[Exception]) -> None: ...
    def restart(self, encoding: str | None, errors: str) -> None: ...
    def clear(self) -> None: ...
    def objects(
        self,
        out: list[Any],
        wanted: int,
        explain: Callable[[ErrorReply], Any],
        check: Callable[[Any], object] | None = None,
        undecoded: Container[int] | None = None,
    ) -> bool: ...
