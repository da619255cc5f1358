"""`redis-fastbatch load` of NDJSON and of JSON over several lines."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cli_shell import Shell
from redis_fastbatch import EncodeError
from redis_fastbatch.cli import json_values, load

pytest.importorskip("pyarrow")


def test_values_of_lines_are_kept(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    rows = [
        {"k": "a", "n": 1},
        {"k": "b", "n": 1.5, "when": "2024-01-01T00:00:00"},
        {"k": "c", "n": None, "deep": [{"x": [1, "y"]}]},
        {"k": "d", "big": 2**64 - 1},
    ]
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert shell("load", path, "--key", "k")[0] == 0
    assert shell.batch.batch_get(["a", "b", "c", "d"]) == {row["k"]: row for row in rows}
    assert shell("load", path, "--key", "k", "--prefix", "h:", "--as", "hash")[0] == 0
    assert shell.client.hgetall("h:c") == {b"k": b"c", b"deep": b'[{"x": [1, "y"]}]'}


def test_lines_that_are_not_rows_fail(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"k": 1}\nnonsense\n[1]\n{"x": 1}\n{"k": null}\n{"k": 1.5}\n{"k": true}\n{"k": 2}\n\xff\n')
    code, messages = shell("load", path, "--key", "k")
    assert code == 1
    assert "line 2: not JSON: Expecting value (column 1)" in messages
    assert "line 3: expected an object, found [1]" in messages
    assert "line 4: the key column 'k' is null or missing" in messages
    assert "line 6: the key column 'k' holds float" in messages
    assert "line 9: expected UTF-8, found the byte 0xff at byte 1" in messages
    assert "2 written, 7 failed" in messages
    code, messages = shell("load", path, "--key", "k", "--on-error", tmp_path / "bad.ndjson")
    failed = [json.loads(line) for line in (tmp_path / "bad.ndjson").read_text().splitlines()]
    assert [entry["line"] for entry in failed] == [2, 3, 4, 5, 6, 7, 9]
    assert failed[0]["item"] == "nonsense"
    assert failed[2]["item"] == {"x": 1}


@pytest.mark.parametrize("installed", [True, False], ids=["msgspec", "json"])
def test_lines_are_read_the_same_with_and_without_msgspec(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if installed:
        pytest.importorskip("msgspec")
    else:
        monkeypatch.setitem(sys.modules, "msgspec", None)
    path = tmp_path / "a.ndjson"
    lines = [
        '\ufeff{"k": 1}',
        '{"k": 2, "n": -Infinity}',
        '{"k": 3, "n": 1e999}',
        f'{{"k": 4, "n": {2**64}}}',
        '{"k": 5, "a": 1, "b": 2, "a": 3}',
        '{"k": 6, "deep": [{"a" : 1, "a"\t: ":"}]}',
        '{"k": 7, "n": -0, "f": -0.0, "t": "\\":", "u": "x\\" y"}',
        '{"k": 8}\x00',
        '{"k": 9, "\\u006b": 10}',
        "{",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    code, messages = shell("load", path, "--key", "k")
    assert code == 1
    assert "key '4': ['n']: an int must be from -2**63 to 2**64 - 1" in messages
    assert "line 3: the number 1e999 is too large for a float of 64 bits" in messages
    assert "line 5: an object has the name 'a' twice" in messages
    assert "line 6: an object has the name 'a' twice" in messages
    assert "line 8: not JSON: Extra data (column 9)" in messages
    assert "line 9: an object has the name 'k' twice" in messages
    assert "line 10: not JSON: Expecting property name" in messages
    assert "3 written, 7 failed" in messages
    found = shell.batch.batch_get(["1", "2", "7"])
    assert found == {
        "1": {"k": 1},
        "2": {"k": 2, "n": -float("inf")},
        "7": {"k": 7, "n": 0, "f": 0.0, "t": '":', "u": 'x" y'},
    }
    assert isinstance(found["7"]["n"], int)
    assert math.copysign(1, found["7"]["f"]) == -1


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_a_line_nested_too_deeply_fails_alone(shell: Shell, tmp_path: Path, as_: str) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"k": 1}\n{"k": 2, "v": ' + "[" * 200_000 + "]" * 200_000 + '}\n{"k": 3}\n')
    code, messages = shell("load", path, "--key", "k", "--as", as_)
    assert code == 1
    assert "line 2: not JSON that can be read: " in messages
    assert "2 written, 1 failed" in messages


def test_ctrl_c_counts_the_hashes_that_were_written(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"id": i, "name": "n"}) + "\n" for i in range(3000)]
    (tmp_path / "a.ndjson").write_text("".join(lines))
    shell.client.set("1500", "no hash, which HSET refuses")

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load.FailedRows, "__call__", ctrl_c)
    code, messages = shell("load", tmp_path / "a.ndjson", "--key", "id", "--as", "hash")
    assert code == 130
    counts = re.search(r"^interrupted: ([\d,]+) written, ([\d,]+) failed", messages, re.MULTILINE)
    assert counts, messages
    written, failed = (int(count.replace(",", "")) for count in counts.groups())
    hashes = shell.client.dbsize() - 1
    assert 0 < written <= hashes <= written + failed


def test_failed_hashes_are_reported_by_their_keys(shell: Shell, tmp_path: Path) -> None:
    """The number of a row within a table of 10,000 would mean nothing to the user."""
    lines = [
        "\n",
        "no JSON\n",
        *(json.dumps({"id": i, "k": 1}) + "\n" for i in range(10_050)),
        '{"id": "empty"}\n',
    ]
    (tmp_path / "a.ndjson").write_text("".join(lines))
    code, messages = shell("load", tmp_path / "a.ndjson", "--key", "id", "--columns", "k", "--as", "hash")
    assert code == 1
    assert "key 'empty': a hash must have at least one field" in messages
    assert "line 2: not JSON" in messages


@pytest.mark.parametrize("more", [(), ("--as", "hash")])
def test_lone_surrogates_fail_alone(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    # msgspec refuses lone surrogates, so test the other reader too.
    monkeypatch.setitem(sys.modules, "msgspec", None)
    rows = ['{"k": "\\ud800"}', '{"k": "a", "t": "\\ud800"}', '{"k": "b", "\\ud800": 1}', '{"k": "c"}']
    path, bad = tmp_path / "a.ndjson", tmp_path / "bad.ndjson"
    path.write_text("\n".join(rows))
    code, messages = shell("load", path, "--key", "k", "--on-error", bad, *more)
    assert (code, "1 written, 3 failed" in messages) == (1, True)
    assert shell.client.keys() == [b"c"]
    assert [json.loads(line)["item"] for line in bad.read_text().splitlines()] == [
        json.loads(row) for row in rows[:3]
    ]


def test_names_with_a_zero_byte_fail_alone_in_hashes(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"k": "a", "x\\u0000y": 1}\n{"k": "b"}\n')
    code, messages = shell("load", path, "--key", "k", "--as", "hash")
    assert (code, "key 'a': found a field name with a zero byte" in messages) == (1, True)
    assert shell.client.keys() == [b"b"]


@pytest.mark.parametrize("as_", ["value", "hash"])
@pytest.mark.parametrize("rows", [1, 3000])
def test_columns_that_no_line_has_are_an_error(shell: Shell, tmp_path: Path, as_: str, rows: int) -> None:
    """A mistyped name would be a null in every row."""
    path = tmp_path / "a.ndjson"
    path.write_text("".join(json.dumps({"id": i, "name": "x"}) + "\n" for i in range(rows)))
    load = ["load", path, "--key", "id", "--as", as_, "--columns"]
    code, messages = shell(*load, "nmae,name")
    assert code == 1
    assert (
        messages.splitlines()[-1] == "redis-fastbatch: column 'nmae': no row has it: check the names in --columns"
    )
    # Hashes are written 10,000 at a time.
    assert shell.client.dbsize() == (0 if rows == 1 or as_ == "hash" else rows)
    with path.open("a") as file:
        file.write('{"id": "late", "nmae": 1}\n')
    assert shell(*load, "nmae,name")[0] == 0
    assert shell.client.dbsize() == rows + 1
    path.write_text("no JSON\n")
    code, messages = shell(*load, "name")
    assert (code, "no row has it" in messages) == (1, False)


def test_hashes_may_have_any_field_names(shell: Shell, tmp_path: Path) -> None:
    """Fields may have any names, and nested values are written as JSON."""
    path = tmp_path / "a.ndjson"
    row = {"id": 1, "redis-fastbatch key": "x", "{id}": "y", "kkkkkkkkkkkkkkkkkkkk": "z"}
    path.write_text(json.dumps({**row, "n": {"x": [float("nan"), "ä"]}}) + "\n")
    assert shell("load", path, "--key", "id", "--as", "hash")[0] == 0
    found = {name.decode(): value.decode() for name, value in shell.client.hgetall("1").items()}
    assert found == {**row, "id": "1", "n": '{"x": [null, "ä"]}'}


ROWS: list[dict[str, Any]] = [
    {"k": "a", "t": '[{,"\\}]\n', "n": 1.5},
    {"k": "b", "deep": {"k": "z", "rows": [{"k": "y"}, []]}},
    {"k": "é€😀", "n": None},
]


@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("around", ["[", "\ufeff \n\r\n\t[", "objects"])
def test_json_over_several_lines_is_loaded(
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    piece: int,
    indent: int | None,
    ascii_only: bool,
    around: str,
) -> None:
    monkeypatch.setattr(json_values, "PIECE", piece)
    texts = [json.dumps(row, indent=indent, ensure_ascii=ascii_only) for row in ROWS]
    text = "\n".join(texts) if around == "objects" else f"{around}{' , '.join(texts)}\n ] \n"
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    code, messages = shell("load", tmp_path / "a.json", "--key", "k")
    assert (code, messages.split(";")[0]) == (0, "3 written")
    assert shell.batch.batch_get([row["k"] for row in ROWS]) == {row["k"]: row for row in ROWS}
    assert shell.client.dbsize() == 3


def test_elements_that_are_not_rows_fail(shell: Shell, tmp_path: Path) -> None:
    path, bad = tmp_path / "a.json", tmp_path / "bad.ndjson"
    path.write_text('[\n{"k": 1},\n{"x":\n2}, 7,\n{"k": 3,\n"k": 4}, {"k": 5, "n": -1e400},\n{"k": 2}]\n')
    code, messages = shell("load", path, "--key", "k", "--on-error", bad)
    assert (code, messages.split(";")[0]) == (1, "2 written, 4 failed")
    failed = [json.loads(line) for line in bad.read_text().splitlines()]
    assert [(entry["line"], entry["error"][:45], entry["item"]) for entry in failed] == [
        (3, "line 3: the key column 'k' is null or missing", {"x": 2}),
        (4, "line 4: expected an object, found 7", 7),
        (5, "line 5: an object has the name 'k' twice: onl", '{"k": 3,\n"k": 4}'),
        (6, "line 6: the number -1e400 is too large for a ", '{"k": 5, "n": -1e400}'),
    ]
    assert sorted(shell.client.keys()) == [b"1", b"2"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'[\n{"k": 1},\n{"k": 2}\n', "the file ends within the array that begins in line 1"),
        (b'[\n{"k": 1},\n{"k": 2', "line 3: not JSON: Expecting ',' delimiter"),
        (b'[\n{"k": 1}\n{"k": 2}]', "line 3: expected a comma or the array's end, found '{'"),
        (b'[\n{"k": 1},\n]', "line 3: expected an element after the comma"),
        (b'[\n{"k": 1}]\n{"k": 2}', "line 3: expected nothing after the array's end"),
        (b'[\n{"k": 1}, {"k": "x\n"}]', "line 2: not JSON: Invalid control character at"),
        (b'[{"k": 1},\n\n{"k": "x}, {]"', "line 3: not JSON: Expecting ',' delimiter"),
        (b'[\n{"k": 1},\n{"k": "\xff"}]', "line 3: expected UTF-8, found the byte 0xff"),
        (b'[\n{"k": 1},\n{"k": "\xe2\x82', "line 3: expected UTF-8, found the byte 0xe2"),
        (b'[\n{"k": 1}, ' + b"[" * 200_000, "line 2: not JSON that can be read: "),
        (b'{\n"rows": [\n{"k": 1},\n{"k": 2}\n],\n"n": oops\n}\n', "line 6: not JSON: Expecting value"),
        (b"{", "line 1: not JSON: Expecting property name"),
    ],
)
def test_json_over_several_lines_that_breaks_off(shell: Shell, tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    code, messages = shell("load", path, "--key", "k")
    assert code == 1
    assert f"redis-fastbatch: {path}: {reason}" in messages
    assert set(shell.client.keys()) <= {b"1", b"2"}


@pytest.mark.parametrize("text", [b"[]", b" [ \n] ", b"", b"\n\r\n", b"\xef\xbb\xbf\n"])
def test_files_without_values_have_no_rows(shell: Shell, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.json").write_bytes(text)
    code, messages = shell("load", tmp_path / "a.json", "--key", "k")
    assert (code, messages.split(";")[0]) == (0, "0 written")


@pytest.mark.parametrize("text", [ROWS[0], ROWS, {}])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_refused_by_name(shell: Shell, tmp_path: Path, encoding: str, text: Any) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(text, indent=1).encode(encoding)))
    code, messages = shell("load", path, "--key", "k")
    assert code == 1
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert messages.startswith(f"redis-fastbatch: {path}: expected UTF-8, found {name}: convert it first")


def test_line_ends_blank_lines_and_byte_order_marks_are_accepted(shell: Shell, tmp_path: Path) -> None:
    """Windows line ends, blank lines, no line end at the end, and byte order marks between joined files."""
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'\xef\xbb\xbf{"k": 1}\r\n \t\r\n\xef\xbb\xbf{"k": 2}\n\n\0\0{"k": 9}\n{"k": 3}')
    code, messages = shell("load", path, "--key", "k")
    assert code == 1
    assert "line 5: not JSON: Expecting value (column 1)" in messages
    assert sorted(shell.client.keys()) == [b"1", b"2", b"3"]


def test_lines_and_elements_that_are_too_long_fail(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_values, "LONGEST_VALUE", 100)
    monkeypatch.setattr(json_values, "PIECE", 16)
    path = tmp_path / "a.ndjson"
    rows = [{"k": 1}, {"k": 2, "t": "x" * 1000}, {"k": 3, "t": "y" * 83}, {"k": 4, "t": "z" * 84}, {"k": 5}]
    lines = [json.dumps(row) for row in rows]
    assert list(map(len, lines)) == [8, 1017, 100, 101, 8]
    path.write_text("\n".join(lines) + "\n")
    code, messages = shell("load", path, "--key", "k")
    assert (code, "3 written, 2 failed" in messages) == (1, True)
    assert "line 2: the line is longer than 100 bytes" in messages
    assert sorted(shell.client.keys()) == [b"1", b"3", b"5"]
    path.write_text("[" + ",\n".join(lines) + "]")
    code, messages = shell("load", path, "--key", "k")
    assert (code, f"{path}: line 2: the value is longer than 100 bytes" in messages) == (1, True)


def test_msgspec_and_json_find_the_same_repeated_names() -> None:
    """A reader with msgspec finds the same repeated names as the standard library."""
    pytest.importorskip("msgspec")
    generator = random.Random(14)
    texts = ['"', ":", '":', '": ', '" :', "a", "\\", "\t", " ", "é", "\\u003a", "u003a"]

    def value(depth: int) -> str:
        kind = generator.randrange(7 if depth else 4)
        if kind < 2:
            text = json.dumps("".join(generator.choices(texts, k=generator.randrange(4))))
            return text.replace(":", "\\u003A") if generator.randrange(3) == 0 else text
        if kind < 4:
            return str(generator.choice([0, 1.5, -7, "null", "true"]))
        items = [value(depth - 1) for _ in range(generator.randrange(4))]
        if kind == 4:
            return f"[{','.join(items)}]"
        colon = generator.choice([":", ": ", " :", "\t: ", "\r:"])
        return "{" + ", ".join(f'"{generator.choice("abcdef:")}"{colon}{item}' for item in items) + "}"

    loads = json_values.line_reader()
    repeated = 0

    def count_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        repeated += len(dict(pairs)) < len(pairs)
        return dict(pairs)

    found = 0
    for _ in range(20_000):
        text, repeated = f'{{"top": {value(3)}}}', 0
        expected = json.loads(text, object_pairs_hook=count_repeated)
        try:
            assert loads(text.encode()) == expected
            assert not repeated, text
        except EncodeError:
            assert repeated, text
            found += 1
    assert 1000 < found < 19_000
