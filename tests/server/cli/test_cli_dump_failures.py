"""`redis-fastbatch dump` names values that it cannot write, and writes the others unchanged."""

from __future__ import annotations

import base64
import datetime
import json
import random
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cli_shell import Shell
from redis_fastbatch.cli.dump import MatchingKeys

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

UTC = datetime.timezone.utc
FORMS = ["ndjson", "csv", "parquet"]
FOREIGN = {"bad:cut": b"\x83\xa1", "bad:text": b'{"a": 1}', b"bad:\xff": b"\xc1"}


@pytest.mark.parametrize("form", FORMS)
def test_foreign_values_are_named_and_the_rest_is_written(shell: Shell, tmp_path: Path, form: str) -> None:
    shell.batch.batch_set({f"good:{i}": {"id": i} for i in range(2000)})
    shell.client.mset(FOREIGN)
    shell.client.hset("h", "a", 1)
    failed = tmp_path / "failed.ndjson"
    code, messages = shell("dump", tmp_path / f"a.{form}", "--as", "value")
    assert code == 1
    assert (
        messages.count("key 'bad:cut': ")
        == messages.count("key 'bad:text': ")
        == messages.count("key b'bad:\\xff': ")
        == 1
    )
    assert messages.endswith("2,000 rows written, 3 failed, 1 left out\n")
    code, messages = shell("dump", tmp_path / f"a.{form}", "--as", "value", "--on-error", failed, "--quiet")
    assert (code, messages.startswith("left out: 1 hash (key 'h')"), messages.count("\n")) == (1, True, 1)
    lines = {line["key"]: line for line in map(json.loads, failed.read_text().splitlines())}
    assert lines.keys() == {"bad:cut", "bad:text", "bad:\\xff", "h"}
    assert all(line["error"] for line in lines.values())
    assert lines["h"]["raw_base64"] is None
    raw = {}
    for name, line in lines.items():
        if name != "h":
            key = base64.b64decode(line["key_base64"]) if "key_base64" in line else name
            raw[key] = base64.b64decode(line["raw_base64"])
    assert raw == FOREIGN
    shell.client.flushdb()
    numbers = ["--type", "id=int64"] if form == "csv" else []
    assert shell("load", tmp_path / f"a.{form}", "--key", "id", "--quiet", *numbers) == (0, "")
    assert shell.batch.batch_get(range(2000)) == {i: {"id": i} for i in range(2000)}


@pytest.mark.parametrize("form", FORMS)
def test_stop_keeps_the_existing_file(shell: Shell, tmp_path: Path, form: str) -> None:
    """An existing file does not change."""
    target = tmp_path / f"a.{form}"
    target.write_text("old")
    shell.batch.batch_set({i: {"id": i} for i in range(100)})
    shell.client.set("bad", b"\xc1")
    code, messages = shell("dump", target, "--on-error", "stop")
    assert (code, messages.startswith("redis-fastbatch: stopped at key 'bad': "), messages.count("\n")) == (
        1,
        True,
        1,
    ), messages
    shell.client.delete("bad")
    shell.client.lpush("list", 1)
    code, messages = shell("dump", target, "--on-error", "stop")
    assert (
        code,
        messages.startswith("redis-fastbatch: stopped at key 'list': expected a string, found a list"),
    ) == (
        1,
        True,
    )
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_text() == "old"


@pytest.mark.parametrize("form", FORMS)
def test_a_dump_without_rows_keeps_the_existing_file(shell: Shell, tmp_path: Path, form: str) -> None:
    """With another codec all values fail, and an earlier dump stays."""
    target = tmp_path / f"a.{form}"
    target.write_text("old")
    shell.client.set("a", b"\xc1")
    assert shell("dump", target)[0] == 1
    assert target.read_text() == "old"


def test_keys_of_other_types_are_counted_by_type(shell: Shell, tmp_path: Path) -> None:
    for i in range(5):
        shell.client.hset(f"h{i}", "a", 1)
    shell.client.sadd("s", 1)
    shell.client.zadd("z", {"a": 1})
    shell.client.xadd("x", {"a": "1"})
    code, messages = shell("dump", tmp_path / "a.ndjson", "--as", "value")
    assert code == 1
    first = messages.splitlines()[0]
    assert first.startswith("left out: 5 hashes (keys 'h")
    assert first.count("'h") == 3
    assert [line.split(" (")[0] for line in messages.splitlines()[1:-1]] == [
        "left out: 1 set", "left out: 1 stream", "left out: 1 zset"
    ]  # fmt: skip
    assert messages.endswith("0 rows written, 8 left out\n")


def test_keys_that_expire_during_the_dump_are_no_failures(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = MatchingKeys.lists_of_keys

    def some_expire(self: MatchingKeys) -> Any:
        for some in keys(self):
            shell.client.delete("a", "b")
            yield some

    monkeypatch.setattr(MatchingKeys, "lists_of_keys", some_expire)
    for form in FORMS:
        shell.batch.batch_set({"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}})
        assert shell("dump", tmp_path / f"a.{form}") == (0, "1 rows written, 2 gone meanwhile\n")


@pytest.mark.parametrize("file", ["a.ndjson", "no/such/file"])
def test_an_invalid_file_of_failures_is_an_error(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, messages = shell("dump", "a.ndjson", "--on-error", file)
    assert (code, messages.count("\n"), f"--on-error {file}" in messages) == (1, 1, True)


SCALARS: list[Any] = [
    None, True, 5, -(2**63), 2**60 + 1, 2**64 - 1, 0.5, 1e300, -0.0, float("inf"), "", "text", "12:30", "007",
    "NA", 'q"\r\n,;', b"", b"\xff", b"ok", datetime.datetime(2024, 1, 2, 3, 4, 5, 600, UTC),
    datetime.datetime(1, 1, 1, tzinfo=UTC),
]  # fmt: skip


def some_value(generator: random.Random, depth: int = 0) -> Any:
    if depth < 2 and generator.random() < 0.1:
        return [some_value(generator, depth + 1) for _ in range(generator.randrange(3))]
    if depth < 2 and generator.random() < 0.1:
        return {generator.choice("abc"): some_value(generator, depth + 1) for _ in range(generator.randrange(3))}
    return generator.choice(SCALARS)


def some_rows(generator: random.Random) -> dict[str, Any]:
    # Most values of a column have the same type, so that some rows do not fit.
    usual_values = {name: generator.choice(SCALARS) for name in "abcd"}
    return {
        f"k{i}": {
            name: some_value(generator) if generator.random() < 0.05 else usual_values[name]
            for name in usual_values
            if generator.random() < 0.8
        }
        for i in range(120)
    }


def same(found: Any, expected: Any) -> bool:
    """Return whether a value in a column is the one that was stored.

    Ints in a column of floats are floats, and a field that a row does not have is a null.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(same(found.get(name), expected.get(name)) for name in found.keys() | expected.keys())
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, (bool, str, bytes)) or isinstance(found, (bool, str, bytes)):
        return type(found) is type(expected) and bool(found == expected)
    return bool(found == expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("keys_at_once", [7, 50, 20_000])
def test_any_value_is_in_the_parquet_file_or_fails(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, keys_at_once: int
) -> None:
    """Each value is unchanged in the file, or in the file of failures with its bytes."""
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", keys_at_once)
    rows = some_rows(random.Random(f"{seed}"))
    shell.batch.batch_set(rows)
    stored = {key: shell.client.get(key) for key in rows}
    failed = tmp_path / "failed.ndjson"
    code, messages = shell("dump", tmp_path / "a.parquet", "--key", "key", "--on-error", failed)
    lines = [json.loads(line) for line in failed.read_text().splitlines()]
    assert code == (1 if lines else 0), messages
    assert "redis-fastbatch: " not in messages
    assert {line["key"]: base64.b64decode(line["raw_base64"]) for line in lines}.items() <= stored.items()
    found = {row.pop("key"): row for row in parquet.read_table(tmp_path / "a.parquet").to_pylist()}
    assert found.keys() | {line["key"] for line in lines} == rows.keys()
    assert len(found) + len(lines) == len(rows)
    for key, row in found.items():
        assert same(row, rows[key]), (key, row, rows[key])


@pytest.mark.parametrize("seed", range(12))
def test_any_value_is_in_the_ndjson_file_or_fails(shell: Shell, tmp_path: Path, seed: int) -> None:
    rows = some_rows(random.Random(f"{seed}"))
    shell.batch.batch_set(rows)
    failed = tmp_path / "failed.ndjson"
    shell("dump", tmp_path / "a.ndjson", "--key", "key", "--on-error", failed)
    lines = [json.loads(line)["key"] for line in failed.read_text().splitlines()]
    shell.client.flushdb()
    if len(lines) < len(rows):
        assert shell("load", tmp_path / "a.ndjson", "--key", "key", "--quiet") == (0, "")
    found = {key: value for key, value in shell.batch.batch_get(rows).items() if value is not None}
    assert found.keys() == rows.keys() - set(lines)

    def as_json(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: as_json(item) for name, item in value.items()}
        if isinstance(value, list):
            return [as_json(item) for item in value]
        if isinstance(value, datetime.datetime):
            return value.isoformat()
        return value.decode() if isinstance(value, bytes) else value

    for key, row in found.items():
        expected = {"key": key, **as_json(rows[key])}
        assert repr(row) == repr(expected)


@pytest.mark.parametrize("codec", ["json", "toolkit-msgpack", "toolkit"])
def test_values_of_other_codecs_that_do_not_fit_their_column_fail(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    from redis_fastbatch import FastBatch

    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 10)
    FastBatch(shell.client, codec=codec).batch_set({i: {"n": i if i % 50 else "word"} for i in range(1, 201)})
    code, messages = shell("dump", tmp_path / "a.parquet", "--codec", codec)
    assert code == 1
    assert parquet.read_table(tmp_path / "a.parquet").num_rows in (196, 4), messages


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_is_an_error(shell: Shell, form: str) -> None:
    shell.batch.batch_set({i: {"id": i} for i in range(5000)})
    code, messages = shell("dump", "/dev/full", "--format", form, "--quiet")
    assert (code, messages.count("\n"), "No space left on device" in messages) == (1, 1, True), messages


def test_a_row_of_nulls_needs_a_key_column_in_csv(shell: Shell, tmp_path: Path) -> None:
    """A row with only a null would be a blank line, which CSV readers ignore."""
    shell.batch.batch_set({1: {"x": None}, 2: {"x": "a"}})
    code, messages = shell("dump", tmp_path / "a.csv")
    assert (code, "give --key" in messages) == (1, True), messages
    assert shell("dump", tmp_path / "a.csv", "--key", "key")[0] == 0
    assert sorted((tmp_path / "a.csv").read_text().splitlines()) == ['"1",', '"2","a"', '"key","x"']


def test_timestamps_that_cannot_share_a_column_fail(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nanoseconds end in 2262, microseconds later. The value that does not fit is named."""
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 1)
    shell.client.set("a", msgpack.packb({"t": msgpack.Timestamp(2**40, 0)}))
    shell.batch.batch_set({"b": {"t": msgpack.Timestamp(0, 1)}})
    code, messages = shell("dump", tmp_path / "a.parquet")
    assert (code, messages.endswith("1 rows written, 1 failed\n")) == (1, True), messages


def test_a_large_int_that_a_float_can_hold_is_written(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow's check refuses whole numbers beyond 2^53 as floats."""
    monkeypatch.setattr("redis_fastbatch.cli.dump.KEYS_AT_ONCE", 1)
    shell.batch.batch_set({"a": {"n": -(2**63)}, "b": {"n": 0.5}})
    assert shell("dump", tmp_path / "a.parquet") == (0, "2 rows written\n")
    assert sorted(parquet.read_table(tmp_path / "a.parquet")["n"].to_pylist()) == [-(2.0**63), 0.5]


def test_a_failed_value_does_not_decide_the_type_of_its_column(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list fails, so that later text can be written."""
    monkeypatch.setattr(MatchingKeys, "lists_of_keys", lambda _: iter([[b"a"], [b"b"]]))
    shell.batch.batch_set({"a": {"n": [1]}, "b": {"n": "text"}})
    code, messages = shell("dump", tmp_path / "a.csv")
    assert (code, messages.endswith("1 rows written, 1 failed\n")) == (1, True), messages
    assert (tmp_path / "a.csv").read_text() == '"n"\n"text"\n'


def test_reasons_of_failures_say_what_to_do(shell: Shell, tmp_path: Path) -> None:
    shell.batch.batch_set({"a": {"t": "x"}, "b": {"t": 5}, "c": 123})
    shell.client.set("json", '{"a": 1}')
    code, messages = shell("dump", tmp_path / "a.parquet")
    lines = messages.splitlines()
    assert code == 1
    assert any("found the int 123: " in line and "dump as NDJSON" in line for line in lines)
    assert sum("field 't' holds " in line and "dump as NDJSON" in line for line in lines) == 1
    assert any("key 'json': " in line and "--codec json" in line for line in lines)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_error_names_the_file_on_a_full_disk(shell: Shell, tmp_path: Path) -> None:
    shell.batch.batch_set({"a": {"t": "x"}, "b": {"t": 5}})
    reason = "No space left on device: free space, or name a file on another disk\n"
    for form in FORMS:
        messages = f"redis-fastbatch: /dev/full: {reason}"
        assert shell("dump", "/dev/full", "--format", form, "--match", "a") == (1, messages)
    code, messages = shell("dump", tmp_path / "a.csv", "--on-error", "/dev/full")
    assert (code, messages) == (1, f"redis-fastbatch: --on-error /dev/full: {reason}")
