"""`redis-fastbatch load` of CSV: quotes, and files that end within them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_shell import Shell
from redis_fastbatch.cli import csv_input

pa = pytest.importorskip("pyarrow")


@pytest.mark.parametrize("quoted", ["", '"'])
def test_a_quote_within_a_cell_is_text(shell: Shell, tmp_path: Path, quoted: str) -> None:
    path = tmp_path / "a.csv"
    filler = "x" * 1000
    rows = [f"{i},{quoted}{filler}{quoted}" for i in range(20_000)]
    rows[9_000] = '9000,pipe of 5"'
    path.write_text("k,v\n" + "\n".join(rows) + "\n")
    assert shell("load", path, "--key", "k")[0] == 0
    assert shell.client.dbsize() == 20_000
    found = shell.batch.batch_get(["9000", "9001", "19999"])
    assert [row["v"] for row in found.values()] == ['pipe of 5"', filler, filler]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id,a\n" + "".join(f"{i},text\n" if i != 10 else f'{i},"text {i}\n' for i in range(1000)), 12),
        ('id,a\n1,"x"\n2,"tex', 3),
        ('id,a\n1,"x"\n2,"tex""', 3),
        ('id,a\n1,x\n"2', 3),
        ('id\n1\n"2\n', 3),
        ('id,a\n1,"', 2),
        ('id,a\n7,5" pipe\n1,"x\n', 3),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_ends_within_quotes_is_an_error(
    shell: Shell, tmp_path: Path, text: str, line: int, workers: int
) -> None:
    """Otherwise all rows after the quote would be one cell."""
    path = tmp_path / "a.csv"
    path.write_text(text)
    code, messages = shell("load", path, "--key", "id", "--workers", workers)
    reason = f"{path}: the file ends within quotes, which begin in the row of line {line} and are not closed"
    assert (code, messages) == (1, f"redis-fastbatch: {reason}\n")
    assert shell.client.dbsize() == 0


def test_a_header_that_ends_within_quotes_is_an_error(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,"a\n1,x\n2,y\n')
    code, messages = shell("load", path, "--key", "id")
    assert (code, messages) == (
        1,
        f"redis-fastbatch: {path}: the header has no end: close the quote that is open in it\n",
    )


def test_a_large_file_that_ends_within_quotes_is_loaded_up_to_them(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_input, "CSV_HEAD", 10_000)
    monkeypatch.setattr(csv_input, "CSV_BLOCK", 1000)
    path = tmp_path / "a.csv"
    rows = [f'{i},"text, ""{i}"""\n' for i in range(5000)]
    path.write_text("id,a\n" + "".join(rows)[:-2])
    code, messages = shell("load", path, "--key", "id")
    assert code == 1
    assert "within quotes, which begin in the row of line 5001 and" in messages
    assert messages.startswith(f"ended early: {shell.client.dbsize():,} written")
    assert 4900 < shell.client.dbsize() < 5000
    assert max(map(int, shell.client.keys())) == shell.client.dbsize() - 1
    path.write_text("id,a\n" + "".join(rows)[:-1])
    assert shell("load", path, "--key", "id")[0] == 0
    assert shell.client.dbsize() == 5000


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", "\n\n\n"])
@pytest.mark.parametrize(
    "rows",
    [['5" pipe,x', "1,2"], ["1,2", '5,x"'], ['"a""","b"', '1,"""x"""'], ["1,2", '"3"4,"5"6"'], ["1", '"2"']],
)
def test_a_file_whose_quotes_are_closed_is_loaded(shell: Shell, tmp_path: Path, rows: list[str], end: str) -> None:
    path = tmp_path / "a.csv"
    header = "id,a" if "," in rows[0] else "id"
    path.write_bytes("\n".join([header, *rows]).encode() + end.encode())
    code, messages = shell("load", path, "--key", "id", "--type", "id=string")
    assert (code, messages.partition(";")[0]) == (0, "2 written")
    assert shell.client.dbsize() == 2
