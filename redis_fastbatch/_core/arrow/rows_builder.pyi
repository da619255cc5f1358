from collections.abc import Callable

from redis_fastbatch._core.arrow.builder import ColumnBuilder
from redis_fastbatch._core.codec import ValueCodec

class RowsBuilder(ValueCodec):
    rows: int
    def __init__(
        self,
        fields: list[ColumnBuilder] | None = None,
        tag: bytes = b"",
        repack: Callable[[bytes], bytes] | None = None,
    ) -> None: ...
