"""`redis-fastbatch load` of Parquet: what pyarrow's reader changes or does not check by default."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell
from redis_fastbatch.cli import parquet_input

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

MOMENTS = [
    *(dt.datetime(9999, 12, 31, 23, 59, 59, 999_999), dt.datetime(1, 1, 1), dt.datetime(1677, 1, 1)),
    *(None, dt.datetime(2262, 5, 1), dt.datetime(1969, 12, 31, 23, 59, 59, 999_999), dt.datetime(2024, 5, 1)),
]
FINE = [1_714_566_600_123_456_789, -1, None, 0, 1, 10**18, -(10**18) + 7]
"""Nanoseconds since 1970."""
FINE_TEXTS = [
    *("2024-05-01T12:30:00.123456789", "1969-12-31T23:59:59.999999999", None, "1970-01-01T00:00:00"),
    *("1970-01-01T00:00:00.000000001", "2001-09-09T01:46:40", "1938-04-24T22:13:20.000000007"),
]


def text(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def keys(shell: Shell) -> set[str]:
    """Return the keys that the server has."""
    return {key.decode() for key in shell.client.scan_iter()}


def written(path: Path, table: Any, **options: Any) -> Path:
    """Write a file with INT96 times, as Spark, Hive and Impala do."""
    parquet.write_table(table, path, use_deprecated_int96_timestamps=True, **options)
    return path


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_int96_keeps_every_date(shell: Shell, tmp_path: Path, store_schema: bool, workers: int) -> None:
    """By default pyarrow reads INT96 as nanoseconds, which overflow: 9999-12-31 becomes 1816-03-29."""
    moments = pa.array(MOMENTS, pa.timestamp("us"))
    table = pa.table(
        {
            "id": range(7),
            "valid_to": moments,
            "list": pa.array([[moment, None] for moment in MOMENTS], pa.list_(moments.type)),
            "struct": pa.StructArray.from_arrays([moments, pa.array(range(7))], ["at", "n"]),
            "map": pa.array([[("x", moment)] for moment in MOMENTS], pa.map_(pa.string(), moments.type)),
        }
    )
    path = written(tmp_path / "a.parquet", table, store_schema=store_schema, row_group_size=3)
    assert shell("load", path, "--key", "id", "--workers", workers)[0] == 0
    for i, moment in enumerate(map(text, MOMENTS)):
        assert shell.batch.batch_get([f"{i}"])[f"{i}"] == {
            "id": i,
            "valid_to": moment,
            "list": [moment, None],
            "struct": {"at": moment, "n": i},
            "map": {"x": moment},
        }
    shell.client.flushdb()
    assert shell("load", path, "--key", "x:{valid_to}", "--columns", "id")[0] == 1
    assert keys(shell) == {f"x:{text(moment)}" for moment in MOMENTS if moment}


def test_int96_keeps_nanoseconds(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Microseconds could hold every date but would lose nanoseconds."""
    monkeypatch.setattr(parquet_input, "PARQUET_ROWS", 2)
    table = pa.table({"id": range(7), "at": pa.array(FINE, pa.timestamp("ns")), "a.b": range(7), "a": range(7)})
    written(tmp_path / "fine.parquet", table)
    code, messages = shell("load", tmp_path / "fine.parquet", "--key", "id", "--as", "hash")
    assert code == 0, messages
    found = [shell.client.hget(f"{i}", "at") for i in range(7)]
    assert found == [None if text is None else text.encode() for text in FINE_TEXTS]
    shell.client.flushdb()
    assert shell("load", tmp_path / "fine.parquet", "--key", "id", "--columns", "a,at")[0] == 0
    values = shell.batch.batch_get([f"{i}" for i in range(7)])
    assert list(values.values()) == [{"a": i, "at": at} for i, at in enumerate(FINE_TEXTS)]
    shell.client.flushdb()
    assert shell("load", tmp_path / "fine.parquet", "--key", "at", "--columns", "at")[0] == 1
    assert keys(shell) == set(filter(None, FINE_TEXTS))


def test_int96_may_have_a_different_unit_in_each_column(shell: Shell, tmp_path: Path) -> None:
    """Far dates and nanoseconds may be in two columns. In one column they are an error."""
    days = (dt.date(9999, 12, 31) - dt.date(1970, 1, 1)).days
    rows = 3
    far = pa.array([days * 86_400_000_000] * rows, pa.timestamp("us"))
    table = pa.table({"id": range(rows), "far": far, "fine": far})
    path = written(tmp_path / "a.parquet", table, use_dictionary=False, compression="none", write_statistics=False)
    data = path.read_bytes()
    julian = (days + 2_440_588).to_bytes(4, "little")
    values = (bytes(8) + julian) * rows
    assert data.count(values) == 2
    last = data.rindex(values)
    near = ((123_456_789).to_bytes(8, "little") + (2_440_588).to_bytes(4, "little")) * rows
    path.write_bytes(data[:last] + near + data[last + len(near) :])
    assert shell("load", path, "--key", "id")[0] == 0
    assert shell.batch.batch_get(["2"])["2"] == {
        "id": 2,
        "far": "9999-12-31T00:00:00",
        "fine": "1970-01-01T00:00:00.123456789",
    }
    shell.client.flushdb()
    both = (bytes([1]) + bytes(7) + julian) + near[12:]
    path.write_bytes(data[:last] + both + data[last + len(both) :])
    code, messages = shell("load", path, "--key", "id")
    assert (code, shell.client.dbsize()) == (1, 0)
    assert "column 'fine', of Parquet's type INT96, holds both nanoseconds and dates outside" in messages
    assert shell("load", path, "--key", "id", "--columns", "far")[0] == 0
    beyond = (bytes(8) + (2**31 - 1).to_bytes(4, "little")) * rows
    path.write_bytes(data[:last] + beyond + data[last + len(beyond) :])
    code, messages = shell("load", path, "--key", "id")
    assert code == 1
    assert "column 'fine', of Parquet's type INT96, holds a point in time more than 292,277 years" in messages


def test_changed_pages_are_found_by_their_checksums(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": range(1000), "s": [f"name{i}" for i in range(1000)]})
    parquet.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"name500", b"name509", 1))
    code, messages = shell("load", path, "--key", "id")
    assert (code, shell.client.dbsize()) == (1, 0)
    assert f"{path}: could not verify page integrity, CRC checksum verification failed" in messages


def test_intervals_are_refused_by_name(shell: Shell, tmp_path: Path) -> None:
    """pyarrow reads an interval as twelve bytes."""
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "a.parquet"
    query = "select 1 as id, interval '1 month 2 days' as i, [interval '1 day'] as l"
    duckdb.sql(f"copy ({query}) to '{path}' (format parquet)")
    for more, name in ([], "i"), (["--columns", "l"], "l"):
        code, messages = shell("load", path, "--key", "id", *more)
        assert (code, f"column {name!r} is of Parquet's type INTERVAL" in messages) == (1, True)
    assert shell("load", path, "--key", "id", "--columns", "id")[0] == 0


def test_types_are_loaded_as_documented(shell: Shell, tmp_path: Path) -> None:
    """The expected values are those of pyarrow's to_pylist(), or of docs/tables.md for types MessagePack lacks."""
    table = pa.table(
        {
            "id": ["a"],
            "binary without UTF8": pa.array([b"Impala\xff"]),
            "unsigned": pa.array([2**64 - 1], pa.uint64()),
            "decimal": pa.array(["1.50"]).cast(pa.decimal128(38, 2)),
            "time": pa.array([dt.time(12, 30, 0, 250_000)], pa.time64("us")),
            "UTC": pa.array([dt.datetime(9999, 1, 1)], pa.timestamp("us", "Europe/Brussels")),
            "local": pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("ms")),
            "dictionary": pa.array(["x"]).dictionary_encode(),
            "half": pa.array([1.5], pa.float16()),
            "uuid": pa.array([b"0123456789abcdef"], pa.uuid()),
            "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])),
            "duration": pa.array([dt.timedelta(1)], pa.duration("us")),
            "nothing": pa.nulls(1),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert shell("load", tmp_path / "a.parquet", "--key", "id")[0] == 0
    found = shell.batch.batch_get(["a"])["a"]
    assert found == {
        "id": "a",
        "binary without UTF8": b"Impala\xff",
        "unsigned": 2**64 - 1,
        "decimal": "1.50",
        "time": "12:30:00.250000",
        "UTC": dt.datetime(9999, 1, 1, tzinfo=dt.timezone.utc),
        "local": "2024-01-01T00:00:00",
        "dictionary": "x",
        "half": 1.5,
        "uuid": b"0123456789abcdef",
        "json": '{"a": 1}',
        "duration": "P1D",
        "nothing": None,
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unnamed_index_of_pandas_is_left_out(shell: Shell, tmp_path: Path, workers: int) -> None:
    pandas = pytest.importorskip("pandas")
    path, index = tmp_path / "a.parquet", "__index_level_0__"
    pandas.DataFrame({"id": [1, 2, 3, 4]}).query("id != 3").to_parquet(path)
    assert index in parquet.read_schema(path).names
    load = ["load", path, "--workers", workers, "--key"]
    assert shell(*load, "id")[0] == 0
    assert shell.batch.batch_get(["1", "4"]) == {"1": {"id": 1}, "4": {"id": 4}}
    assert shell(*load, index, "--prefix", "i:")[0] == 0
    assert shell(*load, "id", "--prefix", "n:", "--columns", index)[0] == 0
    assert shell.batch.batch_get(["i:3", "n:4"]) == {"i:3": {"id": 4}, "n:4": {index: 3}}


def test_encrypted_files_are_refused(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"id": [1]}), path)
    path.write_bytes(path.read_bytes()[:-4] + b"PARE")
    code, messages = shell("load", path, "--key", "id")
    assert (code, shell.client.dbsize(), "Traceback" in messages) == (1, 0, False)


@pytest.mark.parametrize(
    ("name", "option", "kind"),
    [
        ("a.ndjson", ["--type", "id=string"], "NDJSON"),
        ("a.json", ["--delimiter", ";"], "NDJSON"),
        ("a.parquet", ["--null", "NA"], "Parquet"),
        ("a.parquet", ["--type", "id=string"], "Parquet"),
    ],
)
def test_options_of_csv_are_refused_for_other_formats(
    shell: Shell, tmp_path: Path, name: str, option: list[str], kind: str
) -> None:
    path = tmp_path / name
    path.write_text('{"id": 1}\n')
    code, messages = shell("load", path, "--key", "id", *option)
    assert (code, shell.client.dbsize()) == (1, 0)
    assert f"{option[0]} is for CSV, and by the file's name this is {kind}" in messages
    code, messages = shell("load", path, "--key", "id", "--format", "ndjson", *option)
    assert f"{option[0]} is for CSV, and by --format ndjson this is NDJSON" in messages
