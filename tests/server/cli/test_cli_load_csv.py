"""`redis-fastbatch load` of CSV."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_shell import Shell
from redis_fastbatch.cli import csv_input, inputs

pa = pytest.importorskip("pyarrow")


def test_csv_options(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('zip\tn\ts\n00501\tNA\t""\n10001\t5\tNA\n2\t6\tx\n')
    shell("load", path, "--key", "zip", "--type", "zip=string")
    assert shell.batch.batch_get(["00501", "10001"]) == {
        "00501": {"zip": "00501", "n": None, "s": ""},
        "10001": {"zip": "10001", "n": 5, "s": "NA"},
    }
    shell("load", path, "--key", "zip", "--type", "zip=int64", "--null", "NA")
    assert shell.batch.batch_get(["501", "10001"]) == {
        "501": {"zip": 501, "n": None, "s": ""},
        "10001": {"zip": 10001, "n": 5, "s": None},
    }
    path.write_text("a;b\n1;2\n")
    assert shell("load", path, "--key", "a", "--delimiter", ";")[0] == 0
    assert shell.batch.batch_get(["1"]) == {"1": {"a": 1, "b": 2}}


@pytest.mark.parametrize("delimiter", ["", "€", '"', "\n", "\r", "ab"])
def test_delimiters_that_are_none(shell: Shell, tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1,2\n")
    code, said = shell("load", tmp_path / "a.csv", "--key", "id", "--delimiter", delimiter)
    assert (code, f"no line's end, not {delimiter!r}" in said) == (1, True), said


def test_types_by_name(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,v\n1,2.50\n")
    assert shell("load", path, "--key", "id", "--type", "v=decimal128(5,2)", "--as", "hash")[0] == 0
    assert shell.client.hgetall("1") == {b"id": b"1", b"v": b"2.50"}
    for name, words in ("strin", "there is no type 'strin'"), ("decimal128(99,2)", "precision"):
        code, said = shell("load", path, "--key", "id", "--type", f"v={name}")
        assert (code, words in said, "timestamp[us]" in said) == (1, True, True), said


@pytest.mark.parametrize("text", ["id,name", "id,name\n", '"id","na\nme"', "id,name\r\n"])
def test_a_header_and_nothing_else(shell: Shell, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    code, said = shell("load", tmp_path / "a.csv", "--key", "id")
    assert (code, said.startswith("0 written")) == (0, True), said


def test_a_header_that_is_no_utf8(shell: Shell, tmp_path: Path) -> None:
    """What was written could be read by nobody."""
    (tmp_path / "a.csv").write_bytes(b"id,na\xe9me\n1,caf\n")
    code, said = shell("load", tmp_path / "a.csv", "--key", "id")
    assert (code, "the header is no UTF-8: b'na\\xe9me'" in said) == (1, True), said
    assert not shell.client.dbsize()


@pytest.mark.parametrize("head", [50, 8_000_000])
@pytest.mark.parametrize("key", ["zip", "z:{name}:{zip}{zip}"])
@pytest.mark.parametrize("text", ["00501", "-01", "-0", "0x10", " 5", "5 "])
def test_keys_that_numbers_are_not_written_as(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, head: int, text: str
) -> None:
    """007 was stored under the key 7, where another row might be."""
    monkeypatch.setattr(csv_input, "CSV_HEAD", head)
    path = tmp_path / "a.csv"
    path.write_text(f"name,zip\na,10001\nb,\nc,{text}\n" + '"a longer\nname",12345\n' * 10)
    code, said = shell("load", path, "--key", key)
    assert code == 1
    assert said.startswith(f"redis-fastbatch: the key column 'zip' has {text!r}, and would be read as numbers")
    assert "--type zip=string takes the text, --type zip=int64 the number" in said
    assert not shell.client.dbsize()


def test_types_decide_about_zeros_before_keys(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,zip\na,10001\nc,00501\n")
    for kind, stored in ("string", b"00501"), ("int64", b"501"):
        shell.client.flushdb()
        assert shell("load", path, "--key", "zip", "--type", f"zip={kind}")[0] == 0
        assert sorted(shell.client.keys()) == sorted([b"10001", stored])
    path.write_text("name,zip\na,0\nc,-5\nd,10\n")
    assert shell("load", path, "--key", "zip")[0] == 0


def test_a_type_that_does_not_hold(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_fastbatch.cli.csv_input.CSV_HEAD", 1000)
    path = tmp_path / "a.csv"
    path.write_text("k,v\n" + "".join(f"{i},{i}\n" for i in range(1000)) + "1000,word\n")
    code, said = shell("load", path, "--key", "k")
    assert code == 1
    assert "conversion error to int64" in said
    assert "give the column's with --type COLUMN=TYPE" in said
    written, reason = said.splitlines()
    assert written.startswith("ended early: ")
    assert reason.startswith(f"redis-fastbatch: {path}: ")
    assert "Traceback" not in said
    assert shell("load", path, "--key", "k", "--workers", 2)[1].splitlines()[-1] == reason
    assert shell("load", path, "--key", "k", "--type", "v=string")[0] == 0


@pytest.mark.parametrize("line", ["x" * 999, "x" * 997 + "\n", '<a b=""c"">\n'])
def test_csv_of_rows_longer_than_a_block(shell: Shell, tmp_path: Path, line: str) -> None:
    text = line * (csv_input.CSV_HEAD * 3 // 4 // len(line))
    path = tmp_path / "a.csv"
    path.write_text("k,v\n" + "".join(f'{i},"{i},{text}"\n' for i in range(5)))
    code, said = shell("load", path, "--key", "k")
    assert (code, said.partition(";")[0]) == (0, "5 written")
    assert shell.batch.batch_get(list("01234")) == {
        f"{i}": {"k": i, "v": f"{i},{text}".replace('""', '"')} for i in range(5)
    }


@pytest.mark.parametrize("quoted", ["", '"'])
def test_csv_with_quotes_that_quote_nothing(shell: Shell, tmp_path: Path, quoted: str) -> None:
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
    ("text", "place"),
    [
        ("id,a\n" + "".join(f"{i},text\n" if i != 10 else f'{i},"text {i}\n' for i in range(1000)), "row 10"),
        ('id,a\n1,"x"\n2,"tex', "row 1"),
        ('id,a\n1,"x"\n2,"tex""', "row 1"),
        ('id,a\n1,x\n"2', "row 1"),
        ('id\n1\n"2\n', "row 1"),
        ('id,a\n1,"', "row 0"),
        ('id,a\n7,5" pipe\n1,"x\n', "row 1"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_csv_that_ends_within_quotes(shell: Shell, tmp_path: Path, text: str, place: str, workers: int) -> None:
    """All rows behind the quote were in the cell of one that was written."""
    path = tmp_path / "a.csv"
    path.write_text(text)
    code, said = shell("load", path, "--key", "id", "--workers", workers)
    reason = f"{path}: the file ends within quotes, which begin in {place} and are never closed"
    assert (code, said) == (1, f"redis-fastbatch: {reason}\n")
    assert shell.client.dbsize() == 0


def test_a_header_that_ends_within_quotes(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,"a\n1,x\n2,y\n')
    code, said = shell("load", path, "--key", "id")
    assert (code, said) == (1, f"redis-fastbatch: {path}: the header has no end: a quote is left open\n")


def test_a_large_csv_that_ends_within_quotes(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_input, "CSV_HEAD", 10_000)
    monkeypatch.setattr(csv_input, "CSV_BLOCK", 1000)
    path = tmp_path / "a.csv"
    rows = [f'{i},"text, ""{i}"""\n' for i in range(5000)]
    path.write_text("id,a\n" + "".join(rows)[:-2])
    code, said = shell("load", path, "--key", "id")
    assert code == 1
    assert "within quotes, which begin in row 4999" in said
    assert said.startswith(f"ended early: {shell.client.dbsize():,} written")
    assert 4900 < shell.client.dbsize() < 5000
    assert max(map(int, shell.client.keys())) == shell.client.dbsize() - 1
    path.write_text("id,a\n" + "".join(rows)[:-1])
    assert shell("load", path, "--key", "id")[0] == 0
    assert shell.client.dbsize() == 5000


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", "\n\n\n"])
@pytest.mark.parametrize(
    "rows", [['5" pipe,x', "1,2"], ["1,2", '5,x"'], ['"a""","b"', '1,"""x"""'], ["1,2", '"3"4,"5"6"'], ["1", '""']]
)
def test_csv_whose_quotes_are_all_closed(shell: Shell, tmp_path: Path, rows: list[str], end: str) -> None:
    path = tmp_path / "a.csv"
    header = "id,a" if "," in rows[0] else "id"
    path.write_bytes("\n".join([header, *rows]).encode() + end.encode())
    code, said = shell("load", path, "--key", "id", "--type", "id=string")
    assert (code, said.partition(";")[0]) == (0, "2 written")
    assert shell.client.dbsize() == 2


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_csv_without_a_line(shell: Shell, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    code, said = shell("load", tmp_path / "a.csv", "--key", "id")
    assert (code, "Empty CSV file" in said) == (1, True), said


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
def test_rows_of_another_number_of_columns(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for row in (b"2,x,y", b"2,\xe9,y", b"2"):
        path.write_bytes(b"id,a\n1,x\n" + row + b"\n")
        command = [sys.executable, "-m", "redis_fastbatch", "load", path, "--key", "id", "--url", shell.url]
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1, done.stderr
        assert b"Expected 2 columns, got " in done.stderr


def test_csv_types_are_those_of_the_first_eight_megabytes(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = (csv_input.CSV_HEAD * 3 // 4) // 100
    path.write_text("k,v,text\n" + "".join(f"{i % 100},1,{i:090}\n" for i in range(rows)) + "100,word,0\n")
    assert shell("load", path, "--key", "k")[0] == 0
    assert shell.batch.batch_get(["100"])["100"]["v"] == "word"


def test_csv_is_not_read_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO(b"k,v\n" + b"1,2\n" * (3 * csv_input.CSV_HEAD))
    monkeypatch.setattr(inputs, "_stream", lambda *_: data)
    options = argparse.Namespace(file="a.csv", key="k", format=None, delimiter=None, types=[], nulls=[])
    with inputs.open_input(options) as source:
        next(iter(source.reader))
        place = -1
        while place != (place := data.tell()):
            time.sleep(0.2)
    assert csv_input.CSV_HEAD < place < csv_input.CSV_HEAD + (40 + pa.cpu_count()) * csv_input.CSV_BLOCK
