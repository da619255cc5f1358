"""How msgspec and pydantic write and read values of a type, for the codecs with `type=`."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis_fastbatch._messages import format_error

DECLARES_FIELDS = ("__dataclass_fields__", "_fields", "__attrs_attrs__", "__struct_fields__")
"""Attributes of the classes whose annotations are the types of their fields, besides TypedDicts."""

Function = Callable[[Any], Any]


@dataclass
class TypeFunctions:
    """What a codec needs for the values of a type.

    Attributes:
        to_bytes: writes a value; it does not check the value's attributes.
        from_bytes: reads a value, and checks that it fits the type.
        convert: returns another value, such as a dict, as one of the type.
        expected: the class of the values; None if they have no common class.
        check_nulls: raises an error if a value whose JSON has a null contains NaN, which is written as null too.
            None if there is nothing to check.
        packed: returns a value as MessagePack, in which NaN is found faster than by check_nulls; or None.
        describe: returns what an exception of these functions says.
        name: the name of the type, for messages.
    """

    to_bytes: Function
    from_bytes: Function
    convert: Function
    expected: type | None
    check_nulls: Function | None
    packed: Function | None
    describe: Callable[[Exception], str]
    name: str


def msgpack_functions(
    kind: Any, default: Function | None, ext_hook: Callable[[int, bytes], Any] | None, plain: Callable[..., Any]
) -> TypeFunctions:
    """Return the functions of a type for MessagePack.

    Args:
        kind: the type.
        default: returns a replacement of a value that the library cannot write.
        ext_hook: reads an extension.
        plain: the class of codecs without a type.
    """
    if _needs_pydantic(kind, set()):
        to_plain, from_plain = _pydantic(kind)
        codec = plain(_pydantic_core().to_jsonable_python if default is None else default, ext_hook)
        return _pydantic_functions(
            kind,
            lambda value: codec.dumps(to_plain(value)),
            lambda data: from_plain(codec.loads(data)),
            from_plain,
        )
    msgspec = _msgspec()

    def read_extension(code: int, data: memoryview) -> Any:
        assert ext_hook is not None
        return ext_hook(code, bytes(data))

    encoder = msgspec.msgpack.Encoder(enc_hook=default)
    decoder = msgspec.msgpack.Decoder(kind, ext_hook=None if ext_hook is None else read_extension)
    return _msgspec_functions(kind, encoder.encode, decoder.decode)


def json_functions(kind: Any, default: Function | None, plain: Callable[..., Any]) -> TypeFunctions:
    """Return the functions of a type for JSON.

    Args:
        kind: the type.
        default: returns a replacement of a value that the library cannot write.
        plain: the class of codecs without a type.
    """
    codec = plain(default)
    if _needs_pydantic(kind, set()):
        adapter = _adapter(kind)
        _, from_plain = _pydantic(kind)
        options = _PYDANTIC_WRITES if default is None else {**_PYDANTIC_WRITES, "fallback": default}

        def check_nulls(value: Any) -> None:
            codec.dumps(adapter.dump_python(value, mode="json", **options))

        return _pydantic_functions(
            kind,
            lambda value: adapter.dump_json(value, **options),
            lambda data: adapter.validate_json(data, **_PYDANTIC_READS),
            from_plain,
            check_nulls,
        )
    msgspec = _msgspec()

    def check_floats(value: Any) -> None:
        codec.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=default))

    encoder, decoder = msgspec.json.Encoder(enc_hook=default), msgspec.json.Decoder(kind)
    packed = msgspec.msgpack.Encoder(enc_hook=default).encode
    return _msgspec_functions(kind, encoder.encode, decoder.decode, check_floats, packed)


def _msgspec() -> Any:
    try:
        import msgspec
    except ImportError as error:
        raise ImportError("a codec with type= needs msgspec: pip install 'redis-fastbatch[typed]'") from error
    return msgspec


def _msgspec_functions(
    kind: Any,
    to_bytes: Function,
    from_bytes: Function,
    check_nulls: Function | None = None,
    packed: Function | None = None,
) -> TypeFunctions:
    msgspec, name = _msgspec(), _name_of(kind)

    def describe(error: Exception) -> str:
        if isinstance(error, msgspec.ValidationError):
            return f"the value does not fit {name}: {error}"
        return format_error(error)

    def convert(value: Any) -> Any:
        return msgspec.convert(value, kind)

    return TypeFunctions(to_bytes, from_bytes, convert, _class_of(kind), check_nulls, packed, describe, name)


# Fields are read by their names too, because a model may write them so. Fields of a wrong type are not written.
_PYDANTIC_READS: dict[str, Any] = {"by_alias": True, "by_name": True}
_PYDANTIC_WRITES: dict[str, Any] = {"round_trip": True, "warnings": "error"}


def _pydantic_core() -> Any:
    import pydantic_core

    return pydantic_core


def _adapter(kind: Any) -> Any:
    """Return a pydantic.TypeAdapter for a type; `kind` may be one."""
    import pydantic

    if tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 11):
        raise ImportError(f"a codec with type= needs pydantic 2.11 or later, found {pydantic.VERSION}")
    return kind if isinstance(kind, pydantic.TypeAdapter) else pydantic.TypeAdapter(kind)


def _pydantic(kind: Any) -> tuple[Function, Function]:
    """Return two functions: one from a value to builtin types, and one back."""
    adapter = _adapter(kind)

    def to_plain(value: Any) -> Any:
        return adapter.dump_python(value, **_PYDANTIC_WRITES)

    def from_plain(value: Any) -> Any:
        return adapter.validate_python(value, **_PYDANTIC_READS)

    return to_plain, from_plain


def _pydantic_functions(
    kind: Any, to_bytes: Function, from_bytes: Function, convert: Function, check_nulls: Function | None = None
) -> TypeFunctions:
    core, adapter = _pydantic_core(), _adapter(kind)
    shown = getattr(adapter, "_type", kind) if kind is adapter else kind
    name = _name_of(shown)

    def describe(error: Exception) -> str:
        if not isinstance(error, core.ValidationError):
            return " ".join(format_error(error).split())
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        first = problems[0]
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"the value does not fit {name}: {first['msg']} - at `${place}`{more}"

    return TypeFunctions(to_bytes, from_bytes, convert, _class_of(shown), check_nulls, None, describe, name)


def _needs_pydantic(kind: Any, seen: set[int]) -> bool:
    """Return whether a type is a pydantic model or contains one. A model's program has imported pydantic."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or id(kind) in seen:
        return False
    seen.add(id(kind))
    if isinstance(kind, pydantic.TypeAdapter):
        return True
    inner = typing.get_args(kind)
    if isinstance(kind, type):
        if hasattr(kind, "__pydantic_validator__"):
            return True
        if typing.is_typeddict(kind) or any(hasattr(kind, name) for name in DECLARES_FIELDS):
            inner = (*inner, *typing.get_type_hints(kind).values())
    return any(_needs_pydantic(part, seen) for part in inner)


def _class_of(kind: Any) -> type | None:
    """Return the class that all values of a type are instances of; None if there may be none."""
    if typing.is_typeddict(kind):
        return dict
    # list[int] says that it is a type, on some versions of Python.
    origin = typing.get_origin(kind)
    found = kind if origin is None else origin
    if not isinstance(found, type):
        return None
    try:
        isinstance(None, found)
    except TypeError:
        # Any is a class on some versions of Python, and a Protocol is one.
        return None
    return found


def _name_of(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
