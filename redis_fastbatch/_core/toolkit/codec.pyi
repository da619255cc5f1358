from collections.abc import Callable, Mapping
from typing import Any

from redis_fastbatch._core.codec import ValueCodec

class ToolkitCodec(ValueCodec):
    preserve_int: bool
    def __init__(self, *, preserve_int: bool = False) -> None: ...

class ToolkitMsgpackCodec(ToolkitCodec): ...

class LimitedCodec(ValueCodec):
    total: int
    def __init__(
        self, codec: ValueCodec, max_value_size: int, max_total: int, error: Callable[[str], Exception]
    ) -> None: ...

def first_longer_key(mapping: Mapping[Any, Any], limit: int) -> Any: ...
