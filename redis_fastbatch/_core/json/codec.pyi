from collections.abc import Callable
from typing import Any

from redis_fastbatch._core.codec import ValueCodec

class JsonCodec(ValueCodec):
    def __init__(
        self, default: Callable[[Any], Any] | None = None, *, allow_nan: bool = False, type: Any = None
    ) -> None: ...
    @property
    def type(self) -> Any: ...
