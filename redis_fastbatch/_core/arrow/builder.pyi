class ColumnBuilder:
    name: str
    def __init__(
        self,
        name: str,
        shape: str | None = None,
        children: list[ColumnBuilder] | None = None,
        unit: int = 1_000_000,
    ) -> None: ...
