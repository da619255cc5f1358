"""`redis-fastbatch load` of CSV: inferred types, failed rows, line ends, encodings, quotes."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell
from redis_fastbatch.cli import csv_input, inputs

pa = pytest.importorskip("pyarrow")


def load_text(shell: Shell, tmp_path: Path, text: str | bytes, *more: object, key: str = "k") -> tuple[int, str]:
    """Write a file with the text, and load it."""
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return shell("load", path, "--key", key, *more)


def rows_of(shell: Shell) -> list[Any]:
    """Return all values in the order of their keys."""
    return list(shell.batch.batch_get(sorted(shell.batch.scan())).values())


def test_delimiter_type_and_null_can_be_given(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('zip\tn\ts\n00501\tNA\t""\n10001\t5\tNA\n2\t6\tx\n')
    shell("load", path, "--key", "zip")
    assert shell.batch.batch_get(["00501", "10001"]) == {
        "00501": {"zip": "00501", "n": "NA", "s": ""},
        "10001": {"zip": "10001", "n": "5", "s": "NA"},
    }
    shell("load", path, "--key", "zip", "--type", "zip=int64", "--null", "NA")
    assert shell.batch.batch_get(["501", "10001"]) == {
        "501": {"zip": 501, "n": None, "s": ""},
        "10001": {"zip": 10001, "n": 5, "s": None},
    }
    path.write_text("a;b\n1;2\n")
    assert shell("load", path, "--key", "a", "--delimiter", ";")[0] == 0
    assert shell.batch.batch_get(["1"]) == {"1": {"a": "1", "b": 2}}


@pytest.mark.parametrize(("other", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_delimiter_is_suggested(shell: Shell, tmp_path: Path, other: str, name: str) -> None:
    code, messages = load_text(shell, tmp_path, f"k{other}a\n1{other}2,5\n")
    given = repr(other)
    assert code == 1
    assert messages == (
        f"redis-fastbatch: column 'k': there is no such column; there is one, {f'k{other}a'!r}, with {name} in "
        f"its name: give --delimiter {given}\n"
    )
    assert load_text(shell, tmp_path, f"k{other}a\n1{other}2,5\n", "--delimiter", given.strip("'"))[0] == 0


def test_whole_numbers_and_floats_share_a_column(shell: Shell, tmp_path: Path) -> None:
    for cells in ("0.5", "1", "", "-20"), ("1", "0.5", "", "-20"):
        messages = load_text(shell, tmp_path, "k,v\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))[
            1
        ]
        assert messages.splitlines()[-1] == "columns: k string, v float64"
        assert [row["v"] for row in rows_of(shell)] == [float(cell) if cell else None for cell in cells]
    for cells in ("0.5", "9007199254740993"), ("9223372036854775808", "1"), ("0.5", "-0"):
        shell.client.flushdb()
        load_text(shell, tmp_path, "k,v\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
        assert [row["v"] for row in rows_of(shell)] == list(cells)


INFERRED = [
    ("7", 7, "int64"),
    ("-12", -12, "int64"),
    ("0", 0, "int64"),
    ("9223372036854775807", 2**63 - 1, "int64"),
    ("-9223372036854775808", -(2**63), "int64"),
    ('"7"', 7, "int64"),
    ("19.90", 19.9, "float64"),
    ("-0.5", -0.5, "float64"),
    ("0.30000000000000004", 0.30000000000000004, "float64"),
    ("0.00000000000000012345", 1.2345e-16, "float64"),
    ("true", True, "bool"),
    ("2024-05-01", "2024-05-01", "date32"),
    ("2024-05-01T12:30:00", "2024-05-01T12:30:00", "timestamp[us]"),
    ("2024-05-01 12:30:00.25", "2024-05-01T12:30:00.250000", "timestamp[us]"),
    ("2024-05-01T12:30:00Z", datetime(2024, 5, 1, 12, 30, tzinfo=timezone.utc), "timestamp[us, tz=UTC]"),
]

TEXTS = [
    *(
        "+32475123456",
        "9223372036854775808",
        "-0",
        "007",
        '"007"',
        "00",
        "0x10",
        "1_000",
        " 5",
        "5 ",
        "1E5",
        "1.5e3",
    ),
    *(
        "inf",
        "nan",
        "NaN",
        "00.5",
        "-00.5",
        ".5",
        "5.",
        "+1.5",
        "0.1234567890123456789",
        "NA",
        "null",
        "NULL",
        "None",
    ),
    *(
        "True",
        "TRUE",
        "yes",
        "t",
        "1.5.2",
        "12:30",
        "03:45",
        "12:30:00",
        "2024-05",
        "2024-05-01T12:30",
    ),
    *("2024-02-30", "0000-01-01", "2024-05-01T24:00:00", "2024-05-01T12:30:00+02:00", "2024-05-01T12:30:00z"),
    *("2024-05-01T12:30:00.1234567", "0000-05-01T12:30:00", "01.05.2024", "٣", "1,5", "$5", "5%", "-", ""),
]


@pytest.mark.parametrize(("cell", "value", "kind"), INFERRED)
def test_types_of_columns_are_inferred(shell: Shell, tmp_path: Path, cell: str, value: object, kind: str) -> None:
    code, messages = load_text(shell, tmp_path, f"k,v\n1,{cell}\n2,\n3,{cell}\n")
    assert (code, messages.splitlines()[-1]) == (0, f"columns: k string, v {kind}")
    assert [row["v"] for row in rows_of(shell)] == [value, None, value]
    assert type(rows_of(shell)[0]["v"]) is type(value)


@pytest.mark.parametrize("cell", TEXTS)
def test_cells_of_other_forms_stay_text(shell: Shell, tmp_path: Path, cell: str) -> None:
    written = f'"{cell}"' if "," in cell else cell
    code, messages = load_text(shell, tmp_path, f"k,v\n1,{written}\n2,{written}\n")
    assert (code, messages.splitlines()[-1]) == (0, "columns: k string, v string")
    assert [row["v"] for row in rows_of(shell)] == [cell.strip('"')] * 2


@pytest.mark.parametrize(("first", "kind"), [(cell, kind) for cell, _, kind in INFERRED])
def test_one_cell_of_another_form_makes_a_column_text(shell: Shell, tmp_path: Path, first: str, kind: str) -> None:
    for other in ("x", "05"):
        assert load_text(shell, tmp_path, f"k,v\n1,{first}\n2,{other}\n3,\n")[0] == 0
        assert [row["v"] for row in rows_of(shell)] == [first.strip('"'), other, ""]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("first", "kind"), [(cell, kind) for cell, _, kind in INFERRED])
def test_later_cells_that_do_not_fit_fail_their_rows(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, kind: str, workers: int
) -> None:
    """Other cells of the column keep their inferred type."""
    monkeypatch.setattr(csv_input, "CSV_HEAD", 1000)
    monkeypatch.setattr(csv_input, "CSV_BLOCK", 700)
    bad = ["007", "x", "-0", "1E5", "True", "2024-02-30", "+5", "0.1234567890123456789", " 5"]
    cells = dict(zip(range(300, 750, 50), bad, strict=True))
    text = "k,v\n" + "".join(f"{i},{cells.get(i, first)}\n" for i in range(900))
    failed = {f"{i}": i + 2 for i in cells}
    dead = tmp_path / "dead.ndjson"
    code, messages = load_text(shell, tmp_path, text, "--on-error", dead, "--workers", workers)
    assert code == 1
    assert messages.startswith(f"{900 - len(failed)} written, {len(failed)} failed; "), messages
    assert shell.client.dbsize() == 900 - len(failed)
    lines = sorted(map(json.loads, dead.read_text().splitlines()), key=lambda entry: entry["line"])
    assert [(entry["item"]["k"], entry["line"]) for entry in lines] == list(failed.items())
    assert lines[0] == {
        "line": 302,
        "error": f"line 302: column 'v': expected {kind}, as in its first cells, found '007': --type v=string "
        "takes any text",
        "item": {"k": "300", "v": "007"},
    }
    shell.client.flushdb()
    assert load_text(shell, tmp_path, text, "--type", "v=string")[0] == 0
    assert {row["v"] for row in rows_of(shell)} == {first.strip('"'), *bad}


def test_types_of_columns_can_be_given(shell: Shell, tmp_path: Path) -> None:
    text = "k,v,w\n007,+5,12:30:00\n"
    assert load_text(shell, tmp_path, text, "--type", "k=int64", "--type", "w=time64[us]")[0] == 0
    assert shell.batch.batch_get(["7"]) == {"7": {"k": 7, "v": "+5", "w": "12:30:00"}}
    code, messages = load_text(shell, tmp_path, "k,v\n1,5\n2,1.5\n3, 8 \n", "--type", "v=int64")
    assert code == 1
    assert "line 3: column 'v': expected int64, as --type says, found '1.5'" in messages
    assert shell.batch.batch_get(["1", "2", "3"])["3"] == {"k": "3", "v": 8}


def test_all_columns_can_be_strings(shell: Shell, tmp_path: Path) -> None:
    code, messages = load_text(shell, tmp_path, "k,a,b\n1,2,true\n", "--type", "*=string", "--type", "b=bool")
    assert (code, messages.splitlines()[-1]) == (0, "columns: k string, a string, b bool")
    assert rows_of(shell) == [{"k": "1", "a": "2", "b": True}]
    assert load_text(shell, tmp_path, "k,a\n1,2\n", "--quiet") == (0, "")


def test_hashes_have_the_text_of_each_cell(shell: Shell, tmp_path: Path) -> None:
    cells = ["1.50", "true", "2024-05-01 12:30:00", "7", "", "19.90"]
    names = "abcdef"
    assert load_text(shell, tmp_path, f"k,{','.join(names)}\n1,{','.join(cells)}\n", "--as", "hash")[0] == 0
    found = {name.decode(): cell.decode() for name, cell in shell.client.hgetall("1").items()}
    assert found == {"k": "1", **dict(zip(names, cells, strict=True))}
    assert load_text(shell, tmp_path, "k,a\n1,1.50\n", "--as", "hash", "--type", "a=float64")[0] == 0
    assert shell.client.hget("1", "a") == b"1.5"


@pytest.mark.parametrize("key", ["k", "{k}", "x:{v}:{k}"])
def test_keys_are_text(shell: Shell, tmp_path: Path, key: str) -> None:
    """Keys are the text of the cells: 007 is not 7, and 12:30 is not 12:30:00."""
    texts = ["12:30", "2024-05-01 12:30:00", "2024-05-01T12:30:00", "007", "7", "1.50", "1.5", "true", "-0", " 5"]
    lines = "".join(f"{text},1\n" for text in texts)
    code, messages = load_text(shell, tmp_path, f"k,v\n{lines}", key=key)
    assert (code, messages.partition(";")[0]) == (0, f"{len(texts)} written"), messages
    assert {found.decode() for found in shell.client.scan_iter()} == {
        key.replace("{k}", text).replace("{v}", "1") if "{" in key else text for text in texts
    }
    assert {row["k"] for row in rows_of(shell)} == set(texts)


def test_a_row_without_a_key_fails(shell: Shell, tmp_path: Path) -> None:
    code, messages = load_text(shell, tmp_path, 'k,a\n,x\n"",y\n3,z\n', key="order:{k}")
    assert (code, shell.client.keys()) == (1, [b"order:3"])
    assert messages.splitlines()[:2] == [f"line {line}: the key column 'k' is null" for line in (2, 3)]


RAGGED = b'k,a\n1,"x\ny"\n\n2,x,"y\n"\n3\n4,caf\xe9\n5,z\n,w\n6,v\n'


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_with_other_numbers_of_cells_fail(
    shell: Shell, tmp_path: Path, workers: int, line_end: bytes
) -> None:
    """They fail alone, each with its line."""
    dead = tmp_path / "dead.ndjson"
    data = RAGGED.replace(b"\n", line_end)
    code, messages = load_text(shell, tmp_path, data, "--on-error", dead, "--workers", workers)
    assert (code, messages.partition(";")[0]) == (1, "3 written, 4 failed")
    assert [(row["k"], row["a"]) for row in rows_of(shell)] == [
        ("1", f"x{line_end.decode()}y"), ("5", "z"), ("6", "v")
    ]  # fmt: skip
    entries = [json.loads(line) for line in dead.read_text().splitlines()]
    assert [(entry["line"], entry["item"]) for entry in entries] == [
        (5, ["2", "x", f"y{line_end.decode()}"]), (7, ["3"]), (8, ["4", "caf\\xe9"]), (10, {"k": None, "a": "w"})
    ]  # fmt: skip
    for entry, words in zip(
        entries,
        ["expected 2 cells, as the header has, found 3", "found 1", "expected UTF-8", "is null"],
        strict=True,
    ):
        assert entry["error"].startswith(f"line {entry['line']}: ")
        assert words in entry["error"]


def test_stop_ends_the_load_at_a_row_with_another_number_of_cells(shell: Shell, tmp_path: Path) -> None:
    code, messages = load_text(shell, tmp_path, "k,v\n1,2\n3,4\n5\n6,7\n8\n", "--on-error", "stop")
    assert (code, messages.splitlines()[0]) == (
        1,
        "stopped at line 4: expected 2 cells, as the header has, found 1",
    )
    assert sorted(shell.client.keys()) == [b"1", b"3"]


def test_rows_that_the_server_refuses_have_their_lines(shell: Shell, tmp_path: Path) -> None:
    dead = tmp_path / "dead.ndjson"
    shell.client.set("2", "not a hash")
    for workers in (1, 2):
        text = 'k,a\n1,"x\ny\n"\n2,z\n'
        code, messages = load_text(shell, tmp_path, text, "--as", "hash", "--workers", workers)
        assert (code, messages.splitlines()[0].startswith("line 5: WRONGTYPE")) == (1, True), messages
        load_text(shell, tmp_path, text, "--as", "hash", "--workers", workers, "--on-error", dead)
        (entry,) = map(json.loads, dead.read_text().splitlines())
        assert (entry["line"], entry["item"]) == (5, {"k": "2", "a": "z"})


def test_carriage_returns_alone_are_line_ends(shell: Shell, tmp_path: Path) -> None:
    code, messages = load_text(shell, tmp_path, 'k,a\r1,"x\ry"\r2,z\r3\r')
    assert (code, messages.splitlines()[0]) == (1, "line 5: expected 2 cells, as the header has, found 1")
    assert rows_of(shell) == [{"k": "1", "a": "x\ry"}, {"k": "2", "a": "z"}]


def test_a_line_end_may_cross_two_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line feed at the beginning of a block belongs to the line end or cell before it."""
    monkeypatch.setattr(csv_input, "CSV_HEAD", 300)
    monkeypatch.setattr(csv_input, "CSV_BLOCK", 100)
    path = tmp_path / "a.csv"
    options = argparse.Namespace(file=str(path), key="k", format=None, delimiter=None, types=[], nulls=[])
    for cell, row in ("a\r\nb", b'%03d,"a\r\nb"\r\n'), ("ab", b"%03d,ab\r\n"):
        # Blocks end within each of a row's bytes in turn.
        for length in range(30):
            first = "x" * length
            path.write_bytes(f"k,v\r\n0,{first}\r\n".encode() + b"".join(row % i for i in range(100)))
            with inputs.open_input(options) as source:
                found = pa.Table.from_batches(source.reader).column("v").to_pylist()
            assert found == [first, *[cell] * 100]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32", "UTF-32")],
)
def test_other_encodings_are_refused_by_name(shell: Shell, tmp_path: Path, encoding: str, name: str) -> None:
    code, messages = load_text(shell, tmp_path, "k,a\n1,é\n".encode(encoding))
    assert (code, f"expected UTF-8, found {name}: " in messages) == (1, True), messages
    assert not shell.client.dbsize()


def test_a_byte_order_mark_is_ignored(shell: Shell, tmp_path: Path) -> None:
    assert load_text(shell, tmp_path, "k,a\n1,é\n".encode("utf-8-sig"))[0] == 0
    assert rows_of(shell) == [{"k": "1", "a": "é"}]


def test_cells_that_are_not_utf8_are_kept_as_bytes(shell: Shell, tmp_path: Path) -> None:
    assert load_text(shell, tmp_path, b"k,a,b\n1,caf\xe9,x\n", "--type", "a=binary")[0] == 0
    assert rows_of(shell) == [{"k": "1", "a": b"caf\xe9", "b": "x"}]


@pytest.mark.parametrize("delimiter", ["", "€", '"', "\n", "\r", "ab"])
def test_invalid_delimiters_are_refused(shell: Shell, tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1,2\n")
    code, messages = shell("load", tmp_path / "a.csv", "--key", "id", "--delimiter", delimiter)
    assert (code, f"a quote or a line end, got {delimiter!r}" in messages) == (1, True), messages


def test_types_are_given_by_their_arrow_names(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,v\n1,2.50\n")
    assert shell("load", path, "--key", "id", "--type", "v=decimal128(5,2)", "--as", "hash")[0] == 0
    assert shell.client.hgetall("1") == {b"id": b"1", b"v": b"2.50"}
    for name, words in ("strin", "there is no type 'strin'"), ("decimal128(99,2)", "precision"):
        code, messages = shell("load", path, "--key", "id", "--type", f"v={name}")
        assert (code, words in messages, "timestamp[us]" in messages) == (1, True, True), messages


@pytest.mark.parametrize("text", ["id,name", "id,name\n", '"id","na\nme"', "id,name\r\n"])
def test_a_file_with_only_a_header_has_no_rows(shell: Shell, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    code, messages = shell("load", tmp_path / "a.csv", "--key", "id")
    assert (code, messages.startswith("0 written")) == (0, True), messages


def test_a_header_that_is_not_utf8_is_an_error(shell: Shell, tmp_path: Path) -> None:
    """A value with this field name could not be decoded."""
    (tmp_path / "a.csv").write_bytes(b"id,na\xe9me\n1,caf\n")
    code, messages = shell("load", tmp_path / "a.csv", "--key", "id")
    assert (code, "the header is not UTF-8: b'na\\xe9me'" in messages) == (1, True), messages
    assert not shell.client.dbsize()


@pytest.mark.parametrize(
    "line",
    ["x" * 997 + "\n", *(pytest.param(line, marks=pytest.mark.full) for line in ("x" * 999, '<a b=""c"">\n'))],
)
def test_rows_may_be_longer_than_a_block(shell: Shell, tmp_path: Path, line: str) -> None:
    text = line * (csv_input.CSV_HEAD * 3 // 4 // len(line))
    path = tmp_path / "a.csv"
    path.write_text("k,v\n" + "".join(f'{i},"{i},{text}"\n' for i in range(5)))
    code, messages = shell("load", path, "--key", "k")
    assert (code, messages.partition(";")[0]) == (0, "5 written")
    assert shell.batch.batch_get(list("01234")) == {
        f"{i}": {"k": f"{i}", "v": f"{i},{text}".replace('""', '"')} for i in range(5)
    }


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_an_error(shell: Shell, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    code, messages = shell("load", tmp_path / "a.csv", "--key", "id")
    assert (code, "expected a CSV header, found an empty file" in messages) == (1, True), messages


def test_types_are_inferred_from_the_first_eight_megabytes(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = (csv_input.CSV_HEAD * 3 // 4) // 100
    path.write_text("k,v,text\n" + "".join(f"{i % 100},1,{i:090}\n" for i in range(rows)) + "100,word,0\n")
    assert shell("load", path, "--key", "k")[0] == 0
    assert shell.batch.batch_get(["100"])["100"]["v"] == "word"


def test_a_file_is_not_read_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO(b"k,v\n" + b"1,2\n" * (3 * csv_input.CSV_HEAD))
    monkeypatch.setattr(inputs, "open_stream", lambda *_: data)
    options = argparse.Namespace(file="a.csv", key="k", format=None, delimiter=None, types=[], nulls=[])
    with inputs.open_input(options) as source:
        next(iter(source.reader))
        place = -1
        while place != (place := data.tell()):
            time.sleep(0.2)
    assert csv_input.CSV_HEAD < place < csv_input.CSV_HEAD + (40 + pa.cpu_count()) * csv_input.CSV_BLOCK


def test_pandas_is_not_imported(shell: Shell, tmp_path: Path) -> None:
    """pandas takes longer to import than a small file takes to load."""
    pytest.importorskip("pandas")
    path = tmp_path / "a.csv"
    row = 'a,"x\ny",0.12345678901234567,2024-05-01,2024-05-01 12:30:00,true\n'
    path.write_text(f"k,text,float,date,time,flag\n{row}b,,,,,\n")
    program = (
        "import sys; from redis_fastbatch.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'pandas' in sys.modules)"
    )
    load = ["load", str(path), "--key", "k", "--type", "flag=bool", "--url", shell.url]
    command = [sys.executable, "-c", program, *load]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert len(list(shell.batch.scan())) == 2
