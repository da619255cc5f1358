"""`redis-fastbatch dump`: formats, types of columns, standard output, mistakes."""

from __future__ import annotations

import datetime
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis

from cli_shell import Shell
from redis_fastbatch import FastBatch
from redis_fastbatch.cli import main
from redis_fastbatch.cli.common import CliError
from redis_fastbatch.cli.parts import Parts
from redis_fastbatch.server import EmbeddedServer

pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
parquet = pytest.importorskip("pyarrow.parquet")

UTC = datetime.timezone.utc
ROWS = [
    {"id": 1, "name": 'ä,"b"\n', "score": 0.5, "at": datetime.datetime(2024, 1, 2, 3, 4, 5, 600, tzinfo=UTC)},
    {"id": 2, "name": None, "score": None, "at": None},
    {"id": 3, "name": "", "score": 1.0, "at": datetime.datetime(2024, 1, 1, tzinfo=UTC)},
]


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Store ROWS and one other row, and return the command line."""
    shell.batch.batch_set({f"u:{row['id']}": row for row in ROWS} | {"other": {"x": 1}})
    return shell


def test_rows_are_dumped_as_parquet(filled: Shell, tmp_path: Path) -> None:
    code, messages = filled("dump", "--match", "u:*", tmp_path / "a.parquet")
    assert (code, messages) == (0, "3 rows written\n")
    assert parquet.read_table(tmp_path / "a.parquet").sort_by("id").to_pylist() == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_rows_are_dumped_as_csv(filled: Shell, tmp_path: Path) -> None:
    assert filled("dump", "--match", "u:*", tmp_path / "a.csv", "--quiet") == (0, "")
    lines = (tmp_path / "a.csv").read_text()
    assert "2024-01-02T03:04:05.000600Z" in lines
    assert "2024-01-01T00:00:00Z" in lines
    options = csv.ConvertOptions(null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False)
    parse = csv.ParseOptions(newlines_in_values=True)
    back = csv.read_csv(tmp_path / "a.csv", parse_options=parse, convert_options=options).sort_by("id")
    assert back.to_pylist() == ROWS


def test_rows_are_dumped_as_ndjson(filled: Shell, tmp_path: Path) -> None:
    assert filled("dump", "--match", "u:*", tmp_path / "a.ndjson")[0] == 0
    rows = sorted(map(json.loads, (tmp_path / "a.ndjson").read_text().splitlines()), key=lambda row: row["id"])
    assert rows == [{**row, "at": row["at"] and row["at"].isoformat()} for row in ROWS]


def test_keys_can_be_a_column(filled: Shell, tmp_path: Path) -> None:
    for form in ("parquet", "csv", "ndjson"):
        path = tmp_path / f"a.{form}"
        assert filled("dump", "--match", "u:*", path, "--key", "key")[0] == 0
        if form == "ndjson":
            keys = {json.loads(line)["key"] for line in path.read_text().splitlines()}
        elif form == "csv":
            keys = {line.split(",")[0].strip('"') for line in path.read_text().splitlines()} & {
                "u:1",
                "u:2",
                "u:3",
            }
        else:
            keys = set(parquet.read_table(path)["key"].to_pylist())
        assert keys == {"u:1", "u:2", "u:3"}
        code, messages = filled("dump", "--match", "u:*", path, "--key", "id")
        assert code == 1
        assert "a field 'id' of their own" in messages


def test_keys_of_other_types_are_left_out(filled: Shell, tmp_path: Path) -> None:
    filled.client.lpush("u:list", 1)
    filled.client.hset("u:hash", "a", 1)
    for form in ("parquet", "ndjson"):
        code, messages = filled("dump", "--match", "u:*", tmp_path / f"a.{form}", "--as", "value")
        hint = "--strings-only ignores other keys"
        assert (code, messages) == (
            1,
            f"left out: 1 hash (key 'u:hash'): without --as value, dump writes hashes too; {hint}\n"
            f"left out: 1 list (key 'u:list'): dump writes strings and hashes; {hint}\n"
            "3 rows written, 2 left out\n",
        )
        code, messages = filled("dump", "--match", "u:*", tmp_path / f"a.{form}", "--strings-only")
        assert (code, messages) == (0, "3 rows written\n")


def test_ndjson_can_hold_any_value(filled: Shell, tmp_path: Path) -> None:
    filled.client.flushdb()
    values = {
        "a": 1,
        "b": "text",
        "c": [1, None],
        "d": float("nan"),
        "e": {"x": float("inf"), "y": b"\xff", "z": b"ok"},
    }
    filled.batch.batch_set(values)
    code, messages = filled("dump", tmp_path / "a.ndjson", "--key", "k")
    assert code == 1
    assert "key 'd': found nan, expected a number that JSON has: dump as Parquet, or with --lossy" in messages
    assert messages.endswith("3 rows written, 2 failed\n")
    assert filled("dump", tmp_path / "a.ndjson", "--key", "k", "--lossy")[0] == 0
    found = {row.pop("k"): row for row in map(json.loads, (tmp_path / "a.ndjson").read_text().splitlines())}
    assert found == {
        "a": {"value": 1},
        "b": {"value": "text"},
        "c": {"value": [1, None]},
        "d": {"value": None},
        "e": {"x": None, "y": "/w==", "z": "ok"},
    }
    code, messages = filled("dump", tmp_path / "a.parquet")
    assert code == 1
    assert "a row must be a map, found" in messages
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == [values["e"]]


def test_numpy_arrays_and_bytearrays_are_written_as_json(shell: Shell, tmp_path: Path) -> None:
    """Arrays are written as lists, not as Python prints them."""
    numpy = pytest.importorskip("numpy")
    values = {
        "long": numpy.arange(2000),
        "floats": numpy.array([[0.5, float("nan")], [float("inf"), 1.0]]),
        "texts": numpy.array(["ä", "b"]),
        "days": numpy.array(["2024-01-02"], "datetime64[ns]"),
        "bytes": [bytearray(b"abc"), {"x": bytearray(b"\xff")}],
    }
    FastBatch(shell.client, codec="toolkit").batch_set(values)
    assert shell("dump", tmp_path / "a.ndjson", "--codec", "toolkit", "--key", "k", "--lossy")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "a.ndjson").read_text().splitlines()]
    assert {row["k"]: row["value"] for row in rows} == {
        "long": list(range(2000)),
        "floats": [[0.5, None], [None, 1.0]],
        "texts": ["ä", "b"],
        "days": ["2024-01-02T00:00:00.000000000"],
        "bytes": ["abc", {"x": "/w=="}],
    }


def test_a_value_that_json_lacks_fails(shell: Shell, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    wrapper = {"__type__": "numpy", "__dtype__": "complex64", "__shape__": [1], "__data__": [1]}
    assert numpy.array([1j]).dtype.kind == "c"
    shell.client.set("odd", json.dumps(wrapper))
    code, messages = shell("dump", tmp_path / "a.ndjson", "--codec", "toolkit")
    assert (code, messages) == (
        1,
        "key 'odd': JSON has no place for a complex\n0 rows written, 1 failed\n",
    )
    assert not (tmp_path / "a.ndjson").exists()


@pytest.mark.parametrize("value", [{1: 2, "1": 3}, [{b"a": 2, "a": 3}], {None: 1, "x": {True: 1, "true": 2}}])
def test_map_keys_that_are_the_same_text_fail_in_json(shell: Shell, tmp_path: Path, value: Any) -> None:
    """A JSON object cannot have the same name twice."""
    shell.batch.batch_set({"twice": value})
    code, messages = shell("dump", tmp_path / "a.ndjson")
    assert code == 1
    assert "key 'twice': expected keys that differ as text, found two that are the same" in messages
    assert messages.count("\n") == 2


def test_map_keys_that_are_not_text_become_text_in_json(shell: Shell, tmp_path: Path) -> None:
    shell.batch.batch_set({"k": {1: 1, b"b": 2, b"\xff": 3, None: 4, 0.5: 6, "e": msgpack.ExtType(5, b"x")}})
    assert shell("dump", tmp_path / "a.ndjson", "--lossy")[0] == 0
    assert json.loads((tmp_path / "a.ndjson").read_text()) == {
        "1": 1,
        "b": 2,
        "/w==": 3,
        "null": 4,
        "0.5": 6,
        "e": [5, "x"],
    }


def test_columns_may_differ_between_parts(filled: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column may be missing in the first part, or have a narrower type there."""
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 100)
    filled.client.flushdb()
    rows = [{"id": i, "v": None if i < 300 else i if i < 600 else i + 0.5} for i in range(1000)]
    for row in rows[900:]:
        row["late"] = f"text {row['id']}"
    filled.batch.batch_set({row["id"]: row for row in rows})
    expected = [{"id": row["id"], "v": row["v"], "late": row.get("late")} for row in rows]
    assert filled("dump", tmp_path / "a.parquet")[0] == 0
    table = parquet.read_table(tmp_path / "a.parquet").sort_by("id").select(["id", "v", "late"])
    assert table.to_pylist() == expected
    assert [str(field.type) for field in table.schema] == ["int64", "double", "string"]
    assert filled("dump", tmp_path / "a.csv")[0] == 0
    back = csv.read_csv(tmp_path / "a.csv").sort_by("id")
    assert back["v"].to_pylist() == [row["v"] for row in rows]
    filled.batch.batch_set({5: {"id": "a word"}})
    code, messages = filled("dump", tmp_path / "b.parquet", "--on-error", "stop")
    assert code == 1
    assert messages.startswith("redis-fastbatch: stopped at key ")
    assert messages.count("\n") == 1
    assert not (tmp_path / "b.parquet").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


@pytest.mark.parametrize(("key", "column"), [("b:1", "x"), (b"b:\xff", "key")])
def test_bytes_that_are_not_utf8_fail_in_csv(filled: Shell, tmp_path: Path, key: Any, column: str) -> None:
    filled.batch.batch_set({"b:2": {"x": b'"t\xc3\xa4xt"'}, key: {"x": b"\xff" if column == "x" else b"text"}})
    path = tmp_path / "a.csv"
    assert filled("dump", "--match", "b:2", path)[0] == 0
    assert path.read_text(encoding="utf-8") == '"x"\n"""täxt"""\n'
    code, messages = filled("dump", "--match", "b:*", path, "--key", "key")
    assert code == 1
    assert ("key that is not UTF-8" if column == "key" else "field 'x' holds bytes that are not UTF-8") in messages
    assert messages.endswith("1 rows written, 1 failed\n")


@pytest.mark.parametrize(("one", "other"), [(2**60 + 1, 0.5), (-1, 2**64 - 1)])
def test_numbers_that_cannot_share_a_column_fail(
    filled: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: float, other: float
) -> None:
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 1)
    filled.client.flushdb()
    filled.batch.batch_set({"a": {"n": one}, "b": {"n": other}})
    code, messages = filled("dump", tmp_path / "a.parquet")
    assert code == 1
    assert "field 'n' holds " in messages
    assert messages.endswith("1 rows written, 1 failed\n")
    assert parquet.read_table(tmp_path / "a.parquet")["n"].to_pylist() in ([one], [other])


def test_nested_values_are_written_to_parquet_only(filled: Shell, tmp_path: Path) -> None:
    filled.client.flushdb()
    filled.batch.batch_set({"a": {"l": [1, 2], "s": {"x": 1}}})
    assert filled("dump", tmp_path / "a.parquet")[0] == 0
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == [{"l": [1, 2], "s": {"x": 1}}]
    code, messages = filled("dump", tmp_path / "a.csv")
    assert code == 1
    assert "key 'a': field 'l' holds a list, expected text or a number: CSV has no place" in messages
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("count", [1, 45_000])
def test_a_column_of_empty_maps_fails_in_parquet(shell: Shell, tmp_path: Path, count: int) -> None:
    shell.batch.batch_set({i: {"i": i, "z": {}} for i in range(count)})
    code, messages = shell("dump", tmp_path / "a.parquet")
    assert (code, "field 'z' holds an empty map" in messages, "NDJSON" in messages) == (1, True, True), messages
    assert shell("dump", tmp_path / "a.ndjson")[0] == 0


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_an_empty_map_is_a_row_of_nulls(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """An empty map is a row of nulls if other rows have fields; otherwise it cannot be a row."""
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 10)
    shell.batch.batch_set({i: {} for i in range(100)})
    code, messages = shell("dump", tmp_path / f"a.{form}")
    assert (code, "maps that are empty" in messages, (tmp_path / f"a.{form}").exists()) == (1, True, False), (
        messages
    )
    shell.batch.batch_set({100: {"id": 5, "name": "x"}})
    assert shell("dump", tmp_path / f"a.{form}") == (0, "101 rows written\n")
    table = (parquet.read_table if form == "parquet" else csv.read_csv)(tmp_path / f"a.{form}")
    assert table.num_rows == 101
    assert [row for row in table.to_pylist() if row["id"] is not None] == [{"id": 5, "name": "x"}]
    assert shell("dump", tmp_path / f"b.{form}", "--key", "k") == (0, "101 rows written\n")


@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet"])
def test_a_closed_standard_output_is_an_error(filled: Shell, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert filled("dump", "-", "--format", form) == (1, "redis-fastbatch: standard output is closed\n")


def test_a_pattern_without_matches_writes_no_rows(filled: Shell, tmp_path: Path) -> None:
    for form in ("parquet", "csv", "ndjson"):
        assert filled("dump", "--match", "nothing*", tmp_path / f"a.{form}") == (0, "0 rows written\n")


def test_lone_surrogates_are_written_to_ndjson(filled: Shell, tmp_path: Path) -> None:
    filled.client.flushdb()
    text = '{"t": "\\ud800 ä"}'
    filled.client.set("k", text)
    assert filled("dump", tmp_path / "a.ndjson", "--codec", "json")[0] == 0
    assert json.loads((tmp_path / "a.ndjson").read_text()) == json.loads(text)


@pytest.mark.parametrize("codec", ["toolkit-msgpack", "toolkit", "json"])
def test_values_of_other_codecs_are_dumped(filled: Shell, tmp_path: Path, codec: str) -> None:
    filled.client.flushdb()
    FastBatch(filled.client, codec=codec).batch_set({"a": {"x": 1, "y": "z"}})
    assert filled("dump", tmp_path / "a.parquet", "--codec", codec)[0] == 0
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == [{"x": 1, "y": "z"}]


@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet"])
def test_rows_can_be_dumped_to_standard_output(filled: Shell, tmp_path: Path, form: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "redis_fastbatch",
            "dump",
            "--match",
            "u:*",
            "-",
            "--format",
            form,
            "--url",
            filled.url,
        ],
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"3 rows written\n")
    if form == "parquet":
        assert parquet.read_table(pa.BufferReader(done.stdout)).num_rows == 3
    else:
        assert "ä" in done.stdout.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_pipe_ends_the_dump_silently(filled: Shell) -> None:
    filled.batch.batch_set({f"u:{i}": {"text": "x" * 1000} for i in range(2000)})
    command = f"{sys.executable} -m redis_fastbatch dump - --format ndjson --url {filled.url} | head -c 100"
    done = subprocess.run(["bash", "-c", command], capture_output=True)
    assert len(done.stdout) == 100
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_a_named_pipe_is_written_to(filled: Shell, tmp_path: Path, form: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Both ends are open before the dump begins, and the pipe holds all of it, so that nothing waits.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert filled("dump", "--match", "*", pipe, "--format", form) == (0, "4 rows written\n")
        data = os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    if form == "parquet":
        assert parquet.read_table(pa.BufferReader(data)).num_rows == 4
    else:
        assert "ä" in data.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and file modes")
def test_links_and_file_modes_are_kept(filled: Shell, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file, link = tmp_path / "folder" / "a.csv", tmp_path / "a.csv"
    file.write_text("old")
    file.chmod(0o600)
    link.symlink_to(file)
    assert filled("dump", "--match", "other", link)[0] == 0
    assert link.is_symlink()
    assert file.read_text() == '"x"\n1\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-"], "give it with --format"),
        (["a.txt"], "neither CSV, NDJSON nor Parquet"),
        (["a.csv.gz"], "dump does not compress"),
        (["no/such/a.csv"], "no/such/a.csv: No such file or directory"),
        (["folder.csv"], "folder.csv: expected a file, found a folder"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    filled: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    code, messages = filled("dump", *arguments)
    assert code == 1
    assert words in messages
    assert messages.count("\n") == 1


def test_a_closed_port_is_an_error(capsys: Any, tmp_path: Path) -> None:
    assert main(["dump", str(tmp_path / "a.csv"), "--url", "redis://127.0.0.1:1"]) == 1
    assert "no connection to redis://127.0.0.1:1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson"])
def test_loaded_rows_are_dumped(
    shell: Shell,
    valkey: EmbeddedServer,
    valkey_client: redis.Redis,
    tmp_path: Path,
    form: str,
) -> None:
    table = pa.table(
        {
            "id": range(45_000),
            "text": [None if i % 7 == 0 else f"ä{i}" for i in range(45_000)],
            "number": [None if i % 5 == 0 else i / 4 for i in range(45_000)],
            "flag": [i % 3 == 0 for i in range(45_000)],
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet")
    assert shell("load", tmp_path / "in.parquet", "--key", "id")[0] == 0
    out = tmp_path / f"out.{form}"
    assert shell("dump", out)[0] == 0
    if form == "parquet":
        assert parquet.read_table(out).sort_by("id").equals(table)
        return
    shell.client.flushdb()
    assert (
        shell("load", out, "--key", "id", *(["--null", "", "--type", "id=int64"] if form == "csv" else []))[0] == 0
    )
    assert FastBatch(valkey_client).batch_get_table(range(45_000)).equals(table)


@pytest.mark.parametrize(
    "settings", ["decode_responses=true", "encoding=latin-1&decode_responses=1", "protocol=3&encoding=utf-16"]
)
@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet"])
def test_the_url_may_set_an_encoding_and_decoding(
    shell: Shell, tmp_path: Path, capsys: Any, settings: str, form: str
) -> None:
    """The settings of the URL must not change how the command reads keys and values."""
    shell.batch.batch_set({"é": {"x": 200}, b"\xff": {"x": 300}})
    path = tmp_path / f"a.{form}"
    assert main(["dump", "--match", "é", "--key", "k", str(path), "--url", f"{shell.url}?{settings}"]) == 0
    assert capsys.readouterr().err == "1 rows written\n"
    if form == "ndjson":
        assert json.loads(path.read_text(encoding="utf-8")) == {"k": "é", "x": 200}
    else:
        read = csv.read_csv if form == "csv" else parquet.read_table
        assert read(path).to_pylist() == [{"k": "é", "x": 200}]


@pytest.mark.parametrize("arguments", [["a.tsv"], ["a.txt", "--format", "tsv"]])
def test_tsv_files_have_tabs(
    filled: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert filled("dump", "--match", "u:*", *arguments)[0] == 0
    assert Path(arguments[0]).read_text(encoding="utf-8").splitlines()[0] == '"id"\t"name"\t"score"\t"at"'
    filled.client.flushdb()
    numbers = ["--type", "id=int64", "--null", ""]
    assert filled("load", arguments[0], "--format", "tsv", "--key", "id", *numbers)[0] == 0
    assert list(filled.batch.batch_get([1, 2, 3]).values()) == ROWS


@pytest.mark.parametrize("seconds", [253_402_300_800, 1_201_000_000_000, -62_135_596_801, -(2**40)])
def test_timestamps_outside_the_years_1_to_9999_fail_in_csv(shell: Shell, tmp_path: Path, seconds: int) -> None:
    """Arrow would write years of more than four digits with a sign."""
    shell.client.set("a", msgpack.packb({"x": msgpack.Timestamp(seconds, 0)}))
    shell.batch.batch_set({"b": {"x": msgpack.Timestamp(0, 0)}})
    code, messages = shell("dump", tmp_path / "a.csv")
    assert (code, "key 'a': field 'x' holds a point in time that is not in the years 1 to 9999" in messages) == (
        1,
        True,
    ), messages
    assert (tmp_path / "a.csv").read_text() == '"x"\n"1970-01-01T00:00:00Z"\n'
    assert shell("dump", tmp_path / "a.parquet")[0] == 0


def test_the_first_and_last_timestamps_are_written_to_csv(shell: Shell, tmp_path: Path) -> None:
    first, last = datetime.datetime(1, 1, 1, tzinfo=UTC), datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    shell.batch.batch_set({"a": {"x": first}, "b": {"x": last}, "c": {"x": None}})
    assert shell("dump", tmp_path / "a.csv", "--key", "key")[0] == 0
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert {'"a","0001-01-01T00:00:00Z"', '"b","9999-12-31T23:59:59.999999Z"'} < set(lines)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_unsigned_and_signed_numbers_share_a_column(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Numbers from 2^63 and smaller ones in other parts can share a column."""
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 1)
    rows = [{"x": 1, "y": None}, {"x": 2**64 - 1, "y": 5}, {"x": None, "y": 2**63}]
    shell.batch.batch_set(dict(enumerate(rows)))
    assert shell("dump", tmp_path / f"a.{form}")[0] == 0
    if form == "parquet":
        found = parquet.read_table(tmp_path / "a.parquet").select(["x", "y"]).to_pylist()
        assert sorted(found, key=str) == sorted(rows, key=str)
    else:
        assert "18446744073709551615" in (tmp_path / "a.csv").read_text()


def test_unsigned_and_signed_numbers_share_a_nested_column(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 1)
    rows = [{"l": [{"n": 1}], "m": {"n": [2**63]}}, {"l": [{"n": 2**63}], "m": {"n": [1]}}]
    shell.batch.batch_set(dict(enumerate(rows)))
    assert shell("dump", tmp_path / "a.parquet")[0] == 0
    assert sorted(parquet.read_table(tmp_path / "a.parquet").select(["l", "m"]).to_pylist(), key=str) == rows


def test_timestamps_of_two_units_share_a_column(tmp_path: Path) -> None:
    """A column has the finer unit if all values fit; otherwise the error names the column."""

    def times(unit: str, ticks: int) -> Any:
        return pa.table({"at": pa.array([ticks], pa.timestamp(unit, "UTC"))})

    both = Parts(tmp_path, 10)
    for table in (times("us", 1), times("ns", 1), times("us", 2)):
        both.add(table)
    both.close()
    with (tmp_path / "a.parquet").open("wb") as file:
        both.write_parquet(file)
    assert parquet.read_table(tmp_path / "a.parquet")["at"].cast(pa.int64()).to_pylist() == [1000, 1, 2000]
    both.add(times("us", 2**62))
    both.close()
    with (tmp_path / "a.csv").open("wb") as file, pytest.raises(CliError, match="column 'at' is timestamp"):
        both.write_csv(file, ",")
