"""Types of the clients' arguments."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

Key: TypeAlias = "str | bytes | int"
K = TypeVar("K", bound=Key)
AnyKey: TypeAlias = Any
"""A key within the package, where it may be one that is refused later."""

AsyncKeys: TypeAlias = "Iterable[K] | AsyncIterable[K]"

Pair: TypeAlias = "tuple[Key, Any] | list[Any]"
Items: TypeAlias = "Mapping[K, Any] | Iterable[Pair]"
AsyncItems: TypeAlias = "Mapping[K, Any] | Iterable[Pair] | AsyncIterable[Pair]"

Hash: TypeAlias = Mapping[Any, Any]
HashPair: TypeAlias = "tuple[Key, Hash] | list[Any]"
HashItems: TypeAlias = "Mapping[K, Hash] | Iterable[HashPair]"
AsyncHashItems: TypeAlias = "Mapping[K, Hash] | Iterable[HashPair] | AsyncIterable[HashPair]"


class Table(Protocol):
    """A table, DataFrame or stream of record batches, by Arrow's PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return a PyCapsule with an ArrowArrayStream."""


class PassAListOfKeys:
    """The result of batch_get("key") for type checkers, which then refuse to use it as a dict.

    A text is an iterable of texts, so a type of the argument cannot exclude it. The call raises TypeError.
    """
