from collections.abc import Callable

from redis_fastbatch._core.codec import ValueCodec

class ColumnBuilder:
    name: str
    def __init__(
        self,
        name: str,
        shape: str | None = None,
        children: list[ColumnBuilder] | None = None,
        unit: int = 1_000_000,
    ) -> None: ...

class RowsBuilder(ValueCodec):
    rows: int
    def __init__(
        self,
        fields: list[ColumnBuilder] | None = None,
        tag: bytes = b"",
        repack: Callable[[bytes], bytes] | None = None,
    ) -> None: ...
