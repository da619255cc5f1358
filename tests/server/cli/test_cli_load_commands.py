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


def test_json_is_refused(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "rows.ndjson"
    file.write_text('{"user": "a"}\n')
    _, said = shell("load", file, "--command", "INCR {user}")
    assert "--command needs CSV or Parquet" in said
