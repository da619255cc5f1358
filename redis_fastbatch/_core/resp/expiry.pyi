from collections.abc import Callable
from typing import Any

class ItemExpiry:
    unit: bytes
    name: str
    column: str | None
    def __init__(
        self,
        name: str,
        convert: Callable[[str, Any], int],
        *,
        fixed: int = 0,
        of_key: Callable[[Any], Any] | None = None,
        column: str | None = None,
        jitter: float = 0,
        seed: int = 0,
    ) -> None: ...
    def time_of(self, key: Any) -> int: ...
