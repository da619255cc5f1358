from typing import Any

from redis_fastbatch._core.arrow.rows_builder import RowsBuilder

class HashColumns:
    builder: RowsBuilder
    def __init__(self, builder: RowsBuilder, *, wanted: bool, max_value_size: int = 0) -> None: ...
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
