"""Convert columns that were read to the types of a schema."""

from __future__ import annotations

import datetime
import decimal
import itertools
import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from redis_fastbatch._core.arrow.builder import ColumnBuilder
from redis_fastbatch._typing import AnyKey
from redis_fastbatch.errors import DecodeError

EPOCH = datetime.date(1970, 1, 1)

_UNITS = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9}))?")
_OFFSET = re.compile(r"(?:Z|([+-])(\d\d):?(\d\d))\Z")
_DURATION = re.compile(r"(-?)P(?:(\d+)D)?(?:T(\d+)(?:\.(\d{1,9}))?S)?")


def distinct(fields: Iterable[pa.Field]) -> list[pa.Field]:
    """Return the fields of a schema or struct; refuse two fields of the same name."""
    names: set[str] = set()
    for field in fields:
        if field.name in names:
            raise ValueError(f"the schema has two fields {field.name!r}: give each field its own name")
        names.add(field.name)
    return list(fields)


def column_builder(name: str, kind: pa.DataType) -> ColumnBuilder:
    """Return the builder of a column that can be converted to the type."""
    shape = shape_of(kind)
    if shape is not None:
        return ColumnBuilder(name, shape)
    if pa.types.is_timestamp(kind):
        return ColumnBuilder(name, "instant", None, _UNITS[kind.unit])
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return column_builder(name, kind.value_type)
    if pa.types.is_struct(kind):
        return ColumnBuilder(name, "struct", [column_builder(field.name, field.type) for field in distinct(kind)])
    if pa.types.is_map(kind):
        keys = column_builder(f"{name}, a key", kind.key_type)
        return ColumnBuilder(name, "map", [keys, column_builder(f"{name}, a value", kind.item_type)])
    if isinstance(kind, pa.BaseExtensionType):
        return column_builder(name, kind.storage_type)
    if _is_list(kind):
        return ColumnBuilder(name, "list", [column_builder(f"{name}[]", kind.value_type)])
    raise TypeError(f"column {name!r}: values cannot be read as {kind}")


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def is_vector(kind: pa.DataType) -> bool:
    """Return whether values of a type are vectors: a fixed number of floats."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


# The order matters: several tests may be true for a type.
_SHAPES: list[tuple[Callable[[pa.DataType], bool], str]] = [
    (pa.types.is_null, "null"),
    (pa.types.is_boolean, "bool"),
    (pa.types.is_uint64, "uint"),
    (pa.types.is_integer, "int"),
    (pa.types.is_float16, "float16"),
    (pa.types.is_float32, "float32"),
    (pa.types.is_floating, "float64"),
    (pa.types.is_decimal, "text"),
    (pa.types.is_date, "text"),
    (pa.types.is_time, "text"),
    (pa.types.is_duration, "text"),
    (lambda kind: pa.types.is_timestamp(kind) and kind.tz is None, "text"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_string_view, "text"),
    (pa.types.is_binary, "binary"),
    (pa.types.is_large_binary, "binary"),
    (pa.types.is_binary_view, "binary"),
    (pa.types.is_fixed_size_binary, "binary"),
]


def shape_of(kind: pa.DataType) -> str | None:
    return next((shape for is_of_kind, shape in _SHAPES if is_of_kind(kind)), None)


def fitted(table: pa.Table, schema: pa.Schema, names: list[AnyKey]) -> pa.Table:
    """Return the columns in the types of the schema."""
    plain = [field.with_type(_without_dictionaries(field.type)) for field in schema]
    for field, column in zip(plain, table.columns, strict=True):
        _refuse_nulls(column, field, names)
    columns = [_fitted_column(column, field, names) for field, column in zip(plain, table.columns, strict=True)]
    columns = [_with_dictionaries(column, field.type) for field, column in zip(schema, columns, strict=True)]
    return pa.table(columns, schema=schema)


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    """Return the type with dictionaries replaced by their values: pyarrow casts to few dictionary types."""
    if pa.types.is_dictionary(kind):
        return _without_dictionaries(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        storage = _without_dictionaries(kind.storage_type)
        return kind if storage == kind.storage_type else storage
    if pa.types.is_map(kind):
        key, item = (
            field.with_type(_without_dictionaries(field.type)) for field in (kind.key_field, kind.item_field)
        )
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    inner = [field.with_type(_without_dictionaries(field.type)) for field in _inner_fields(kind)]
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    return _list_of(inner[0], kind) if _is_list(kind) else kind


def _list_of(item: pa.Field, like: pa.DataType) -> pa.DataType:
    """Return a list type of the same kind as `like`, with other items."""
    if pa.types.is_fixed_size_list(like):
        return pa.list_(item, like.list_size)
    if pa.types.is_large_list(like):
        return pa.large_list(item)
    if pa.types.is_list_view(like):
        return pa.list_view(item)
    return pa.large_list_view(item) if pa.types.is_large_list_view(like) else pa.list_(item)


def _with_dictionaries(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    return pa.chunked_array([_encoded(pa.concat_arrays(column.chunks), kind)] if column.num_chunks else [], kind)


def _encoded(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return an array in a type that has dictionaries where the array has values."""
    if array.type == kind:
        return array
    if pa.types.is_dictionary(kind):
        indices, values = _dictionary_of(array)
        values = _encoded(values, kind.value_type)
        return pa.DictionaryArray.from_arrays(indices.cast(kind.index_type), values, ordered=kind.ordered)
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(_encoded(array, kind.storage_type))
    absent = array.is_null()
    if pa.types.is_struct(kind):
        columns = [_encoded(array.field(i), field.type) for i, field in enumerate(kind)]
        return pa.StructArray.from_arrays(columns, fields=list(kind), mask=absent)
    if pa.types.is_map(kind):
        keys, items = _encoded(array.keys, kind.key_type), _encoded(array.items, kind.item_type)
        return pa.MapArray.from_arrays(array.offsets, keys, items, kind, mask=absent)
    values = _encoded(array.values, kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=absent)
    made_by = _LISTS[type(array)]
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return made_by(array.offsets, array.sizes, values, kind, mask=absent)
    return made_by(array.offsets, values, kind, mask=absent)


_LISTS: dict[type[pa.Array], Callable[..., pa.Array]] = {
    kind: kind.from_arrays for kind in (pa.ListArray, pa.LargeListArray, pa.ListViewArray, pa.LargeListViewArray)
}


def _dictionary_of(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the indices of an array's values in a dictionary, and the dictionary."""
    if _is_flat(array.type):
        encoded = array.dictionary_encode()
        return encoded.indices, encoded.dictionary
    places: dict[Hashable, int] = {}
    # take() supports fewer types.
    values = [array.slice(0, 0)]
    found: list[int | None] = []
    for i, code in enumerate(_codes(array)):
        if code is not None and code not in places:
            places[code] = len(places)
            values.append(array.slice(i, 1))
        found.append(None if code is None else places[code])
    return pa.array(found, pa.int64()), pa.concat_arrays(values)


def _is_flat(kind: pa.DataType) -> bool:
    """Return whether pyarrow can make dictionaries of such values."""
    if (
        isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_struct(kind)
        or pa.types.is_map(kind)
        or _is_list(kind)
    ):
        return False
    return not (pa.types.is_decimal(kind) and kind.bit_width < 128)


def _codes(array: pa.Array) -> list[Hashable]:
    """Return an object for each value that is the same for equal values only; None for nulls."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _codes(array.storage)
    codes: list[Hashable]
    if pa.types.is_struct(kind):
        fields = [_codes(array.field(i)) for i in range(kind.num_fields)]
        codes = list(zip(*fields, strict=True)) if fields else [()] * len(array)
    elif pa.types.is_map(kind):
        pairs = list(zip(_codes(array.keys), _codes(array.items), strict=True))
        codes = [tuple(pairs[start:stop]) for start, stop in itertools.pairwise(array.offsets.to_pylist())]
    elif _is_list(kind):
        items = iter(_codes(pc.list_flatten(array)))
        lengths = pc.list_value_length(array).to_pylist()
        codes = [tuple(itertools.islice(items, length or 0)) for length in lengths]
    else:
        if not _is_flat(kind):
            array = array.cast(pa.decimal128(kind.precision, kind.scale))
        return array.dictionary_encode().indices.to_pylist()  # type: ignore[no-any-return]
    return [code if there else None for code, there in zip(codes, array.is_valid().to_pylist(), strict=True)]


def _refuse_nulls(column: pa.ChunkedArray, field: pa.Field, names: list[AnyKey]) -> None:
    """Refuse nulls in fields that are not nullable, which Arrow does not check."""
    inside = any(_forbids_nulls(inner) for inner in _inner_fields(field.type))
    if not inside and (field.nullable or not column.null_count):
        return
    for name, value in zip(names, column.to_pylist(), strict=True):
        if _lacks(value, field):
            wanted = f"{field.type}" if field.nullable else f"{field.type} not null"
            raise DecodeError(f"field {field.name!r}: expected {wanted}, found null or no value", 0, name)


def _inner_fields(kind: pa.DataType) -> list[pa.Field]:
    if isinstance(kind, pa.BaseExtensionType):
        return _inner_fields(kind.storage_type)
    if pa.types.is_map(kind):
        return [kind.item_field]
    return [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) or _is_list(kind) else []


def _forbids_nulls(field: pa.Field) -> bool:
    return not field.nullable or any(map(_forbids_nulls, _inner_fields(field.type)))


def _lacks(value: Any, field: pa.Field) -> bool:
    """Return whether a value is or contains a null that its field does not allow."""
    if value is None:
        return not field.nullable
    inner = _inner_fields(field.type)
    if isinstance(value, dict):
        return any(_lacks(value.get(of.name), of) for of in inner)
    if pa.types.is_map(field.type):
        return any(_lacks(item, inner[0]) for _, item in value)
    return any(_lacks(item, of) for of in inner for item in value)


def _fitted_column(column: pa.ChunkedArray, field: pa.Field, names: list[AnyKey]) -> pa.ChunkedArray:
    try:
        return cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return _cast_by_value(column, field, names)


def cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if isinstance(kind, pa.BaseExtensionType):
        storage = cast(column, kind.storage_type)
        return pa.chunked_array([kind.wrap_array(chunk) for chunk in storage.chunks], kind)
    if pa.types.is_binary(column.type) and is_vector(kind):
        return pa.chunked_array([_vectors(chunk, kind) for chunk in column.chunks], kind)
    if pa.types.is_string(column.type) and pa.types.is_time(kind):
        # pyarrow casts text to timestamps, but not to times.
        moments = pc.binary_join_element_wise(f"{EPOCH}T", column, "")
        fine = "ns" if kind.unit == "ns" else "us"
        return moments.cast(pa.timestamp(fine)).cast(pa.time64(fine)).cast(kind)
    if pa.types.is_string(column.type) and pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
        return column.cast(pa.timestamp("us", kind.tz)).cast(kind)
    return column.cast(kind)


def _vectors(data: pa.BinaryArray, kind: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    """Return the vectors whose floats have these bytes, as batch_set_table(as_="hash") writes them."""
    fixed = data.cast(pa.binary(_vector_bytes(kind)))
    floats = pa.Array.from_buffers(
        kind.value_type,
        len(fixed) * kind.list_size,
        [None, fixed.buffers()[1]],
        offset=fixed.offset * kind.list_size,
    )
    return pa.FixedSizeListArray.from_arrays(floats, type=kind, mask=fixed.is_null())


def _vector_bytes(kind: pa.FixedSizeListType) -> int:
    return int(kind.list_size * kind.value_type.bit_width // 8)


def _cast_by_value(column: pa.ChunkedArray, field: pa.Field, names: list[AnyKey]) -> pa.ChunkedArray:
    """Convert values one by one: for types that pyarrow cannot cast to, and to find a value that does not fit."""
    values = column.to_pylist()
    try:
        return pa.chunked_array([pa.array([_value(value, field.type) for value in values], field.type)])
    except (ValueError, TypeError, ArithmeticError):
        for name, value in zip(names, values, strict=True):
            try:
                pa.array([_value(value, field.type)], field.type)
            except (ValueError, TypeError, ArithmeticError) as error:
                reason = f"field {field.name!r}: {value!r:.100} does not fit {field.type} ({error})"
                raise DecodeError(reason, 0, name) from error
        raise


def _value(value: Any, kind: pa.DataType) -> Any:
    """Return a value in the form that pa.array() accepts for the type."""
    if value is None:
        return None
    if isinstance(value, str):
        return _value_of_text(value, kind)
    if isinstance(value, bytes) and is_vector(kind):
        if len(value) != _vector_bytes(kind):
            raise ValueError(f"{_vector_bytes(kind)} bytes were expected, found {len(value)}")
        return _vectors(pa.array([value], pa.binary()), kind)[0].as_py()
    if pa.types.is_struct(kind):
        return {field.name: _value(value.get(field.name), field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(_value(key, kind.key_type), _value(item, kind.item_type)) for key, item in value]
    if _is_list(kind):
        return [_value(item, kind.value_type) for item in value]
    return value


def _value_of_text(text: str, kind: pa.DataType) -> Any:
    if pa.types.is_decimal(kind):
        return decimal.Decimal(text)
    if pa.types.is_duration(kind):
        return _ticks(_duration(text), kind.unit)
    if pa.types.is_time(kind):
        return _ticks(_time_of_day(text), kind.unit)
    if pa.types.is_date(kind):
        return datetime.date.fromisoformat(text)
    if pa.types.is_timestamp(kind):
        day, _, time = text.partition("T")
        days = datetime.date.fromisoformat(day).toordinal() - EPOCH.toordinal()
        # pyarrow parses texts too, but not those at the limits of nanoseconds.
        time, offset = (time, 0) if kind.tz is None else _without_offset(time)
        return _ticks((days * 86400 - offset) * 10**9 + _time_of_day(time), kind.unit)
    return text


def _ticks(nanoseconds: int, unit: str) -> int:
    ticks, rest = divmod(nanoseconds * _UNITS[unit], 10**9)
    if rest:
        raise ValueError(f"finer than {unit}")
    return ticks


def _duration(text: str) -> int:
    """Return a duration in nanoseconds from the text that arrow_default() writes."""
    match = _DURATION.fullmatch(text)
    if match is None or text.endswith("P"):
        raise ValueError("expected an ISO 8601 duration in days and seconds")
    sign, days, seconds, fraction = match.groups()
    nanoseconds = (int(days or 0) * 86400 + int(seconds or 0)) * 10**9 + _fraction(fraction)
    return -nanoseconds if sign else nanoseconds


def _time_of_day(text: str) -> int:
    """Return the nanoseconds of HH:MM:SS with a fraction. Python's fromisoformat() truncates fractions."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("no time of day")
    hours, minutes, seconds, fraction = match.groups()
    whole = datetime.timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return int(whole.total_seconds()) * 10**9 + _fraction(fraction)


def _without_offset(text: str) -> tuple[str, int]:
    """Return a time of day without its offset from UTC, and the offset in seconds."""
    match = _OFFSET.search(text)
    if match is None:
        raise ValueError("no offset from UTC")
    sign, hours, minutes = match.groups()
    seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60
    return text[: match.start()], -seconds if sign == "-" else seconds


def _fraction(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))
