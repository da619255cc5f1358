"""`redis-fastbatch load`: formats, options, failures, mistakes."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell
from redis_fastbatch.cli import main

pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [{"id": 1, "name": "ä", "score": 0.5, "ok": True}, {"id": 2, "name": 'b,\n"c"', "score": 1.0, "ok": False}]
TABLE = pa.Table.from_pylist(ROWS)


def as_loaded(name: str) -> list[dict[str, Any]]:
    """Return ROWS as they are loaded from a file of that name. In CSV the key `id` is text."""
    return [{**row, "id": str(row["id"])} if "csv" in name.lower() else row for row in ROWS]


def written(path: Path) -> Path:
    """Write ROWS in the format of the file's name."""
    name = path.name
    plain = path.with_name(name.removesuffix(".gz").removesuffix(".zst").removesuffix(".bz2"))
    if ".csv" in name:
        csv.write_csv(TABLE, plain)
    elif ".parquet" in name:
        parquet.write_table(TABLE, plain)
    else:
        plain.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    if plain != path:
        kind = {"gz": "gzip", "zst": "zstd", "bz2": "bz2"}[name.rpartition(".")[2]]
        with pa.CompressedOutputStream(str(path), kind) as out:
            out.write(plain.read_bytes())
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("a.csv", "a.csv.gz", "a.csv.zst", "a.csv.bz2", "a.ndjson", "a.jsonl.gz", "a.json.zst"),
        *("a.parquet", "a.pq.gz", "A.CSV"),
    ],
)
def test_every_format_and_compression_is_loaded(shell: Shell, tmp_path: Path, name: str) -> None:
    if name == "A.CSV":
        csv.write_csv(TABLE, tmp_path / name)
    elif "pq" in name:
        written(tmp_path / "a.parquet")
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    else:
        written(tmp_path / name)
    code, messages = shell("load", tmp_path / name, "--key", "id", "--prefix", "u:")
    assert code == 0
    assert messages.startswith("2 written; ")
    first, second = as_loaded(name)
    assert shell.batch.batch_get(["u:1", "u:2"]) == {"u:1": first, "u:2": second}


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet", "csv.gz", "parquet.zst"])
def test_standard_input_is_loaded(shell: Shell, tmp_path: Path, form: str) -> None:
    data = written(tmp_path / f"a.{form}").read_bytes()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "redis_fastbatch",
            "load",
            "-",
            "--format",
            form,
            "--key",
            "id",
            "--url",
            shell.url,
        ],
        input=data,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    first, second = as_loaded(form)
    assert shell.batch.batch_get(["1", "2"]) == {"1": first, "2": second}


def test_the_format_may_name_a_compression(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(b"id\tv\n1\t2\n"))
    assert shell("load", path, "--key", "id", "--format", "tsv.gz")[0] == 0
    assert shell.batch.batch_get(["1"]) == {"1": {"id": "1", "v": 2}}


def test_key_columns_and_expiry_can_be_given(shell: Shell, tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet", "a.ndjson"):
        shell.client.flushdb()
        path = written(tmp_path / name)
        code, messages = shell(
            "load", path, "--key", "{name}:{id}", "--columns", "score,id", "--ex", 100, "--quiet"
        )
        assert (code, messages) == (0, "")
        assert shell.batch.batch_get(["ä:1"]) == {"ä:1": {"score": 0.5, "id": as_loaded(name)[0]["id"]}}
        assert 90 < shell.client.ttl("ä:1") <= 100


def test_rows_can_be_written_as_hashes(shell: Shell, tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet", "a.ndjson"):
        shell.client.flushdb()
        assert shell("load", written(tmp_path / name), "--key", "id", "--as", "hash", "--ex", 100)[0] == 0
        ok = b"true" if name == "a.csv" else b"1"
        assert shell.client.hgetall("1") == {b"id": b"1", b"name": "ä".encode(), b"score": b"0.5", b"ok": ok}
        assert 90 < shell.client.ttl("2") <= 100


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--key", "id"], "7"),
        (["--key", "id", "--prefix", "{p}:"], "{p}:7"),
        (["--key", "a{{b}}:{name}:{id}", "--prefix", "x"], "xa{b}:é:7"),
    ],
    ids=str,
)
def test_rows_can_be_written_as_json(
    shell: Shell, tmp_path: Path, arguments: list[str], key: str, workers: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,name,score\n7,é,1.5\n", encoding="utf-8")
    options = ["--codec", "json", "--ex", "60", "--workers", workers]
    assert shell("load", file, *arguments, *options, "--type", "score=float64")[0] == 0
    assert shell.client.keys() == [key.encode()]
    assert shell.client.get(key) == '{"id":"7","name":"é","score":1.5}'.encode()
    assert 0 < shell.client.ttl(key) <= 60
    lines = tmp_path / "rows.ndjson"
    lines.write_text(
        '{"id": "7", "name": "é", "more": [1, null]}\n{"id": "8", "name": "é", "bad": NaN}\n', encoding="utf-8"
    )
    assert shell("load", lines, *arguments, *options)[0] == 1
    assert shell.client.keys() == [key.encode()]
    assert shell.client.get(key) == '{"id":"7","name":"é","more":[1,null]}'.encode()


def test_values_can_be_written_with_another_codec(shell: Shell, tmp_path: Path) -> None:
    assert shell("load", written(tmp_path / "a.csv"), "--key", "id", "--codec", "toolkit-msgpack")[0] == 0
    assert shell.client.get("1")[:1] == b"\xc1"  # type: ignore[index]


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
def test_a_truncated_file_reports_what_was_written(shell: Shell, tmp_path: Path, quiet: list[str]) -> None:
    rows = [{"x": 0}, *({"k": i, "noise": os.urandom(20).hex()} for i in range(50_000))]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(gzip.compress(text.encode())[:-100])
    code, messages = shell("load", path, "--key", "k", *quiet)
    assert code == 1
    failed, summary, reason = messages.splitlines()
    assert failed == "line 1: the key column 'k' is null or missing"
    assert summary.startswith(f"ended early: {shell.client.dbsize():,} written, 1 failed; ")
    assert reason == f"redis-fastbatch: {path}: Truncated compressed stream"


@pytest.mark.parametrize("workers", [1, 3])
def test_failed_rows_are_listed_and_written_to_a_file(shell: Shell, tmp_path: Path, workers: int) -> None:
    table = pa.table({"k": [None if i % 1000 == 7 else i for i in range(50_000)], "v": range(50_000)})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    code, messages = shell("load", path, "--key", "k", "--workers", workers)
    assert code == 1
    numbers = [
        int(number) for number in re.findall(r"^row (\d+): the key column 'k' is null$", messages, re.MULTILINE)
    ]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert numbers[0] == 7
    assert "... and 40 more\n" in messages
    assert "49,950 written, 50 failed" in messages
    bad = tmp_path / "bad.ndjson"
    assert shell("load", path, "--key", "k", "--on-error", bad, "--workers", workers)[0] == 1
    failed = sorted((json.loads(line) for line in bad.read_text().splitlines()), key=lambda entry: entry["row"])
    assert [entry["row"] for entry in failed] == list(range(7, 50_000, 1000))
    assert failed[1] == {
        "row": 1007,
        "error": "row 1007: the key column 'k' is null",
        "item": {"k": None, "v": 1007},
    }


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_for_failed_rows_ends_the_load(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"id": 1}\n{"x": 1}\n')
    code, messages = shell("load", tmp_path / "a.ndjson", "--key", "id", "--on-error", "/dev/full")
    assert code == 1
    assert "ended early: 1 written, 1 failed" in messages
    assert "No space left on device" in messages
    assert shell.client.keys() == [b"1"]


def test_failed_rows_cannot_go_to_the_loaded_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,v\n1,2\n")
    code, messages = shell("load", path, "--key", "id", "--on-error", path)
    assert (code, "is the file that is loaded" in messages) == (1, True)
    assert path.read_text() == "id,v\n1,2\n"


def test_any_failed_row_can_be_written_as_json(shell: Shell, tmp_path: Path) -> None:
    """This holds for bytes, map keys that are not text, and NaN, which JSON lacks, too."""
    bad = tmp_path / "bad.ndjson"
    kind = pa.map_(pa.binary(), pa.int64())
    nested = pa.table(
        {"k": [None, 1], "m": pa.array([[(b"x", 1), (b"\xff", 2)], []], kind), "f": [float("nan"), 1.0]}
    )
    parquet.write_table(nested, tmp_path / "a.parquet")
    assert shell("load", tmp_path / "a.parquet", "--key", "k", "--on-error", bad)[0] == 1
    assert [json.loads(line, parse_constant=pytest.fail)["item"] for line in bad.read_text().splitlines()] == [
        {"k": None, "m": {"x": 1, "/w==": 2}, "f": None}
    ]
    (tmp_path / "a.csv").write_text("k,a\n5,x\n,y\n6,z\n")
    shell.client.set("6", "no hash")
    assert shell("load", tmp_path / "a.csv", "--key", "k", "--as", "hash", "--on-error", bad)[0] == 1
    failed = {entry["line"]: entry["item"] for entry in map(json.loads, bad.read_text().splitlines())}
    assert failed == {3: {"a": "y"}, 4: {"k": "6", "a": "z"}}


def test_parquet_columns_of_the_same_name_are_refused(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table([[1], [2], [3]], names=["k", "a", "a"]), path)
    for columns in ("k,a", "a"):
        code, messages = shell("load", path, "--key", "k", "--columns", columns)
        assert (code, messages) == (
            1,
            "redis-fastbatch: column 'a': each name must be there once, found it 2 times\n",
        )
    assert shell("load", path, "--key", "k", "--columns", "k")[0] == 0


@pytest.mark.parametrize(
    ("key", "columns", "expected"),
    [
        ("id", "user.name", {"user.name": "x"}),
        ("id", "user", {"user": {"name": "n"}}),
        ("id", "id,user.name,user", {"id": 1, "user.name": "x", "user": {"name": "n"}}),
        ("{id}", "id,id.b", {"id": 1, "id.b": {"c": 2}}),
        ("id", None, {"id": 1, "user": {"name": "n"}, "user.name": "x", "id.b": {"c": 2}}),
    ],
)
def test_parquet_columns_may_have_dots_in_their_names(
    shell: Shell, tmp_path: Path, key: str, columns: str | None, expected: dict[str, Any]
) -> None:
    """A name with dots is not a path into nested columns."""
    path = tmp_path / "a.parquet"
    parquet.write_table(
        pa.table({"id": [1], "user": [{"name": "n"}], "user.name": ["x"], "id.b": [{"c": 2}]}), path
    )
    assert shell("load", path, "--key", key, *(["--columns", columns] if columns else []))[0] == 0
    assert shell.batch.batch_get(["1"]) == {"1": expected}


@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson"])
def test_there_may_be_more_workers_than_connections(shell: Shell, tmp_path: Path, capsys: Any, form: str) -> None:
    path = tmp_path / f"a.{form}"
    table = pa.table({"id": range(100_000)})
    if form == "ndjson":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        (parquet.write_table if form == "parquet" else csv.write_csv)(table, path)
    url = f"{shell.url}?max_connections=2"
    assert main(["load", str(path), "--key", "id", "--workers", "8", "--url", url]) == 0, capsys.readouterr().err
    assert shell.client.dbsize() == 100_000


def test_a_column_named_twice_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["load", "a.csv", "--key", "id", "--columns", "a,b,a"])
    assert caught.value.code == 2
    assert "column 'a' is named twice" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("form", ["parquet", "ndjson"])
def test_stop_ends_the_load_at_the_first_failure(shell: Shell, tmp_path: Path, workers: int, form: str) -> None:
    rows = [{"k": None if i == 20_000 else i} for i in range(100_000)]
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, messages = shell("load", path, "--key", "k", "--on-error", "stop", "--workers", workers)
    assert code == 1
    place = "row 20000" if form == "parquet" else "line 20001"
    assert messages.startswith(f"stopped at {place}: the key column 'k' is null")
    assert "1 failed" in messages
    # Rows in flight are completed, and few more are read: by each worker, one part of the file.
    assert 19_000 < shell.client.dbsize() < 30_000 * workers


def test_workers_write_everything(shell: Shell, tmp_path: Path) -> None:
    for form in ("parquet", "csv", "ndjson"):
        shell.client.flushdb()
        path = tmp_path / f"a.{form}"
        table = pa.table({"k": range(60_000), "v": [str(i) for i in range(60_000)]})
        if form == "ndjson":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        else:
            (parquet.write_table if form == "parquet" else csv.write_csv)(table, path)
        code, messages = shell("load", path, "--key", "k", "--workers", 3)
        assert (code, messages.split(";")[0]) == (0, "60,000 written")
        assert shell.client.dbsize() == 60_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.csv", "--key", "id"], "nope.csv: No such file or directory"),
        (
            ["folder.csv", "--key", "id"],
            "folder.csv: expected a file, found a folder: load them one after the other, such as with for file in "
            "folder.csv/*; do redis-fastbatch load",
        ),
        (
            ["a.txt", "--key", "id"],
            "'a.txt' is neither CSV, NDJSON nor Parquet by its name: give the format with --format",
        ),
        (["-", "--key", "id"], "give it with --format"),
        (
            ["a.csv", "--key", "nope"],
            "column 'nope': there is no such column; there are 'id', 'name', 'score', 'ok'",
        ),
        (["a.parquet", "--key", "nope"], "column 'nope': there is no such column"),
        (["a.parquet", "--key", "id", "--columns", "nope"], "column 'nope': there is no such column"),
        (["a.parquet", "--key", "score"], "column 'score': the columns of a key must be of integers"),
        (["a.csv", "--key", "{id", "--columns", "id"], "key template '{id'"),
        (["a.ndjson", "--key", "{id"], "key template '{id'"),
        (["a.csv", "--key", "id", "--format", "parquet"], "Parquet magic bytes not found"),
        (["a.parquet", "--key", "id", "--format", "csv"], "a.parquet: "),
        (["a.csv", "--key", "id", "--type", "zip"], "expected COLUMN=TYPE"),
        (["a.csv", "--key", "id", "--type", "zip=zap"], "there is no type 'zap'"),
        (
            ["a.csv", "--key", "id", "--type", "zip=string"],
            "--type zip: there is no such column; there are id, name",
        ),
        (["a.csv", "--key", "id", "--delimiter", "ab"], "--delimiter must be one ASCII character"),
        (["a.csv", "--key", "id", "--on-error", "no/such/folder.ndjson"], "No such file or directory"),
        (["empty.csv", "--key", "id"], "expected a CSV header, found an empty file"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "a.parquet", "a.ndjson"):
        written(tmp_path / name)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "folder.csv").mkdir()
    code, messages = shell("load", *arguments)
    assert code == 1
    assert words in messages
    assert messages.startswith("redis-fastbatch: ")
    assert messages.count("\n") == 1
    assert shell.client.dbsize() == 0


def test_a_file_that_is_damaged_in_the_middle_ends_the_load(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"k": range(200_000)}), path, row_group_size=100_000, compression="zstd")
    data = bytearray(path.read_bytes())
    middle = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[middle : middle + 1000] = b"\xff" * 1000
    path.write_bytes(data)
    for workers in (1, 2):
        code, messages = shell("load", path, "--key", "k", "--workers", workers)
        assert (code, "Traceback" in messages) == (1, False)
        written, reason = messages.splitlines()
        assert written.startswith("ended early: ")
        assert reason.startswith(f"redis-fastbatch: {path}: ")


def test_servers_that_cannot_be_reached_are_an_error(shell: Shell, tmp_path: Path, capsys: Any) -> None:
    path = written(tmp_path / "a.csv")
    host = shell.url.removeprefix("redis://")
    for url, words in [
        ("redis://127.0.0.1:1", "no connection to redis://127.0.0.1:1"),
        (f"redis://nobody:secret@{host}", f"redis://nobody:***@{host} did not accept user and password"),
        (f"redis://{host}/0?zap=1", f"the URL of redis://{host}/0 has a setting that redis-py does not know"),
        ("http://example.org", "must specify one of the following schemes"),
        ("redis://no.such.host.invalid", "no connection to redis://no.such.host.invalid"),
    ]:
        assert main(["load", str(path), "--key", "id", "--url", url]) == 1
        messages = capsys.readouterr().err
        assert words in messages
        assert messages.count("\n") == 1
        assert "secret" not in messages


def test_invalid_urls_are_an_error(shell: Shell, tmp_path: Path, capsys: Any) -> None:
    path = written(tmp_path / "a.csv")
    for url, words in [
        ("redis://127.0.0.1:99999/0", "the port in the URL is not a number up to 65535"),
        ("redis://127.0.0.1:abc/0", "the port in the URL is not a number up to 65535"),
        (f"{shell.url}/0?socket_timeout=abc", "the URL sets socket_timeout to a value that it cannot have"),
    ]:
        assert main(["load", str(path), "--key", "id", "--url", url]) == 1
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson"])
def test_keys_are_always_utf8(shell: Shell, tmp_path: Path, form: str) -> None:
    """The encoding in the URL must not change the keys."""
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        parquet.write_table(pa.table({"id": ["ü"]}), path)
    else:
        path.write_text("id\nü\n" if form == "csv" else '{"id": "ü"}\n', encoding="utf-8")
    url = f"{shell.url}?encoding=latin-1"
    assert main(["load", str(path), "--key", "é{id}", "--prefix", "ö", "--url", url]) == 0
    assert shell.client.keys() == ["öéü".encode()]


def test_rows_that_the_server_refuses_fail_alone(shell: Shell, tmp_path: Path, acl_server: Any) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"k": "allowed:1"}\n{"k": "other:2"}\n')
    url = f"redis://{acl_server.username}:{acl_server.password}@{acl_server.server.host}:{acl_server.server.port}"
    bad = tmp_path / "bad.ndjson"
    assert main(["load", str(path), "--key", "k", "--url", url, "--on-error", str(bad)]) == 1
    (failed,) = map(json.loads, bad.read_text().splitlines())
    assert (failed["key"], failed["item"]) == ("other:2", {"k": "other:2"})


def test_missing_arguments_are_refused(capsys: Any) -> None:
    for arguments in ([], ["load"], ["load", "a.csv"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: redis-fastbatch" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["a.csv", "b c.csv", "--key", "id"], ["--key", "id", "a.csv", "b c.csv"], ["a.csv", "--key=id", "b c.csv"]],
)
def test_a_second_file_is_refused_with_advice(arguments: list[str], capsys: Any) -> None:
    """The error says how to load several files."""
    with pytest.raises(SystemExit) as caught:
        main(["load", *arguments])
    assert caught.value.code == 2
    assert "load takes one file, and b c.csv is another one: load them one after the other" in (
        messages := capsys.readouterr().err
    )
    assert "for file in a.csv 'b c.csv'; do redis-fastbatch load" in messages
    for more in (["load", *arguments, "--keys"], ["dump", "a.csv", "b.csv"]):
        with pytest.raises(SystemExit):
            main(more)
        assert "unrecognized arguments: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["load", "a.csv", "--key", "k", "--ex"], ["bench", "--rounds"], ["demo", "--rows"]]
)
@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", ""])
def test_invalid_numbers_are_refused(arguments: list[str], number: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, number])
    assert caught.value.code == 2
    assert f"must be a whole number, at least 1, not {number!r}" in capsys.readouterr().err


def test_help_has_examples(capsys: Any) -> None:
    for arguments, words in ([], "load "), (["load"], "examples:"), (["dump"], "examples:"):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--help"])
        assert caught.value.code == 0
        assert words in capsys.readouterr().out


def test_a_failed_row_that_json_cannot_hold_is_reported_by_its_repr(shell: Shell, tmp_path: Path) -> None:
    """Two keys of the map would be the same text, so the report has the row's repr."""
    kind = pa.map_(pa.binary(), pa.int64())
    table = pa.table({"k": pa.array([None], pa.int64()), "m": pa.array([[(b"\xff", 1), (b"/w==", 2)]], kind)})
    parquet.write_table(table, tmp_path / "a.parquet")
    bad = tmp_path / "bad.ndjson"
    assert shell("load", tmp_path / "a.parquet", "--key", "k", "--on-error", bad)[0] == 1
    (failed,) = map(json.loads, bad.read_text().splitlines())
    assert (failed["row"], failed["item"]) == (0, repr({"k": None, "m": {b"\xff": 1, b"/w==": 2}}))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("rows", [1, 20_000])
def test_the_error_names_the_file_on_a_full_disk(shell: Shell, tmp_path: Path, rows: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text("k,v\n" + "1\n" * rows)
    code, messages = shell("load", path, "--key", "k", "--on-error", "/dev/full", "--quiet")
    assert code == 1
    reason = "No space left on device: free space, or name a file on another disk"
    assert messages.endswith(f"redis-fastbatch: --on-error /dev/full: {reason}\n")
    assert "a.csv" not in messages
