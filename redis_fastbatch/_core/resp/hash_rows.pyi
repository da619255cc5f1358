from collections.abc import Mapping
from typing import Any

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.replies import ReplyReader

class HashRows:
    def __init__(
        self,
        types: type | Mapping[Any, type] | None = None,
        codec: ValueCodec | None = None,
        fields: list[tuple[Any, bytes]] | None = None,
        *,
        decodes: bool = False,
        encoding: str = "utf-8",
        errors: str = "strict",
        max_value_size: int = 0,
    ) -> None: ...
    def read_all(self, reader: ReplyReader, keys: list[Any], default: Any, out: dict[Any, Any]) -> int: ...
    def read(
        self,
        reader: Any,
        keys: list[Any],
        done: int,
        default: Any,
        out: dict[Any, Any] | list[tuple[Any, Any]],
        failures: list[tuple[Any, bytes | None, Exception]],
        most: int = ...,
    ) -> int: ...
