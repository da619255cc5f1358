"""`redis-fastbatch load --command` sends a command for each row."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from cli_shell import Shell

CSV = "region,score,user\neu,095,amina\nus,87.50,ben\neu,x,chen\n"


def test_rows_of_csv_are_text_as_in_the_file(shell: Shell, tmp_path: Path) -> None:
    file, failed = tmp_path / "scores.csv", tmp_path / "failed.ndjson"
    file.write_text(CSV)
    words = "ZADD 'board:{region}' {score} {user}"
    code, _ = shell("load", file, "--command", words, "--on-error", failed)
    assert code == 1
    assert shell.client.zscore("board:eu", "amina") == 95
    assert shell.client.zscore("board:us", "ben") == 87.5
    assert shell.client.keys("board:*") != []
    [line] = failed.read_text().splitlines()
    assert "not a valid float" in line
    assert "chen" in json.dumps(json.loads(line))


def test_rows_of_parquet(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "users.parquet"
    parquet.write_table(pa.table({"id": [1, 2], "name": ["a b", "c"], "other": [[1], []]}), file)
    code, _ = shell("load", file, "--command", "RPUSH names {id} {name} {{x}} 'two words'")
    assert code == 0
    expected = [b"1", b"a b", b"{x}", b"two words", b"2", b"c", b"{x}", b"two words"]
    assert shell.client.lrange("names", 0, -1) == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--command", "ZADD board 1 x"], "must name a column in braces"),
        (["--command", "{user} board"], "the first word must be the name"),
        (["--command", "SET k '{user}"], "No closing quotation"),
        (["--command", "SET {user!r} 1"], "without formats"),
        (["--command", "SET {user} 1", "--ex", "5"], "--ex has no meaning with --command"),
        (["--command", "SET {nobody} 1"], "'nobody'"),
        (["--command", "SELECT {user}"], "SELECT changes the state"),
        (["--command", "SET {user} 1", "--key", "user"], "not allowed with argument"),
        ([], "one of the arguments --key --command is required"),
    ],
    ids=str,
)
def test_options_that_are_wrong(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(CSV)
    try:
        code, said = shell("load", file, *arguments)
    except SystemExit as refused:
        # argparse ends the program.
        code, said = refused.code, capsys.readouterr().err
    assert code != 0
    assert reason in said
    assert shell.client.dbsize() == 0


NDJSON = """\
{"user": "amina", "score": 95, "region": "eu"}
{"user": "björn", "score": 87.5, "region": "us", "tags": ["a", 1], "on": true}

[1]
{"user": "chen", "score": "x", "region": "eu"}
{"user": "dana", "region": "eu"}
{"user": "emil", "score": null, "region": "eu"}
{"user": "fay", "score": 5, "region": "eu", "tags": {"k": null}}
"""


def test_rows_of_json(shell: Shell, tmp_path: Path) -> None:
    file, failed = tmp_path / "rows.ndjson", tmp_path / "failed.ndjson"
    file.write_text(NDJSON)
    code, said = shell("load", file, "--command", "ZADD board:{region} {score} {user}", "--on-error", failed)
    assert code == 1
    assert "3 written" in said
    assert shell.client.zrange("board:eu", 0, -1, withscores=True) == [(b"fay", 5.0), (b"amina", 95.0)]
    assert shell.client.zscore("board:us", "björn") == 87.5
    found = {each["line"]: each for each in map(json.loads, failed.read_text().splitlines())}
    assert sorted(found) == [4, 5, 6, 7]
    assert "expected an object" in found[4]["error"]
    assert found[5]["error"].startswith("line 5: (ZADD board:eu x chen): ")
    assert found[5]["item"] == ["ZADD", "board:eu", "x", "chen"]
    assert "line 6: the column 'score' is null or missing" in found[6]["error"]
    assert "line 7: the column 'score' is null or missing" in found[7]["error"]


def test_values_of_json_are_texts(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "rows.ndjson"
    row = {"user": "a", "tags": ["é", 1, {"k": None}], "on": True, "n": 12345678901234567890, "e": ""}
    file.write_text(json.dumps(row) + "\n")
    code, _ = shell("load", file, "--command", "RPUSH {{{user}}} {tags} {on} {n} '{e}' 'a b'")
    assert code == 0
    expected = ['["é", 1, {"k": null}]'.encode(), b"1", b"12345678901234567890", b"", b"a b"]
    assert shell.client.lrange("{a}", 0, -1) == expected


def test_json_stops_at_the_first_failure(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "rows.ndjson"
    file.write_text('{"user": "a"}\n{}\n' + '{"user": "b"}\n' * 3)
    code, said = shell("load", file, "--command", "INCR {user}", "--on-error", "stop")
    assert code == 1
    assert "stopped at line 2: the column 'user' is null or missing" in said
    assert (shell.client.get("a"), shell.client.get("b")) == (b"1", None)


def test_json_is_sent_by_one_worker(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "rows.ndjson"
    file.write_text('{"user": "a"}\n')
    _, said = shell("load", file, "--command", "INCR {user}", "--workers", "2")
    assert "--workers with --command needs CSV or Parquet, found JSON" in said
    assert shell.client.dbsize() == 0
