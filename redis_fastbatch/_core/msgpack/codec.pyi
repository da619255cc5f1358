from collections.abc import Callable
from typing import Any

from redis_fastbatch._core.codec import ValueCodec

class MsgpackCodec(ValueCodec):
    def __init__(
        self,
        default: Callable[[Any], Any] | None = None,
        ext_hook: Callable[[int, bytes], Any] | None = None,
        *,
        type: Any = None,
    ) -> None: ...
    @property
    def type(self) -> Any: ...
