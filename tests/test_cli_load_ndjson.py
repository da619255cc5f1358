"""`redis-fastbatch load` of NDJSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from cli_shell import Shell
from redis_fastbatch.cli import load

pytest.importorskip("pyarrow")


def test_ndjson_keeps_what_its_lines_hold(shell: Shell, tmp_path: Path) -> None:
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


def test_lines_that_are_no_rows(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"k": 1}\nnonsense\n[1]\n{"x": 1}\n{"k": null}\n{"k": 1.5}\n{"k": true}\n{"k": 2}\n\xff\n')
    code, said = shell("load", path, "--key", "k")
    assert code == 1
    assert "row 1: no JSON" in said
    assert "row 2: a line of NDJSON is an object, not [1]" in said
    assert "row 3: the key column 'k' is null or missing" in said
    assert "row 5: the key column 'k' holds float" in said
    assert "2 written, 7 failed" in said
    code, said = shell("load", path, "--key", "k", "--on-error", tmp_path / "bad.ndjson")
    failed = [json.loads(line) for line in (tmp_path / "bad.ndjson").read_text().splitlines()]
    assert [entry["row"] for entry in failed] == [1, 2, 3, 4, 5, 6, 8]
    assert failed[2]["item"] == {"x": 1}


@pytest.mark.parametrize("installed", [True, False], ids=["msgspec", "json"])
def test_ndjson_is_read_alike_with_msgspec_and_without(
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
        "{",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    code, said = shell("load", path, "--key", "k")
    assert code == 1
    assert said.startswith("key '4': an int of 65 bits")
    assert "row 4: no JSON: Expecting property name" in said
    assert "3 written, 2 failed" in said
    inf = float("inf")
    assert shell.batch.batch_get(["1", "2", "3"]) == {
        "1": {"k": 1},
        "2": {"k": 2, "n": -inf},
        "3": {"k": 3, "n": inf},
    }


@pytest.mark.parametrize("as_", ["value", "hash"])
def test_a_line_nested_too_deeply_fails_alone(shell: Shell, tmp_path: Path, as_: str) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"k": 1}\n{"k": 2, "v": ' + "[" * 200_000 + "]" * 200_000 + '}\n{"k": 3}\n')
    code, said = shell("load", path, "--key", "k", "--as", as_)
    assert code == 1
    assert "row 1: no JSON: " in said
    assert "2 written, 1 failed" in said


def test_hashes_of_a_table_that_ctrl_c_ended_are_counted(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"id": i, "name": "n"}) + "\n" for i in range(3000)]
    (tmp_path / "a.ndjson").write_text("".join(lines))
    shell.client.set("1500", "no hash, which HSET refuses")

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load.Failures, "__call__", ctrl_c)
    code, said = shell("load", tmp_path / "a.ndjson", "--key", "id", "--as", "hash")
    assert code == 130
    counts = re.search(r"^interrupted: ([\d,]+) written, ([\d,]+) failed", said, re.MULTILINE)
    assert counts, said
    written, failed = (int(count.replace(",", "")) for count in counts.groups())
    hashes = shell.client.dbsize() - 1
    assert 0 < written <= hashes <= written + failed


def test_hashes_that_fail_are_told_by_their_keys(shell: Shell, tmp_path: Path) -> None:
    """The row's number was that within a table of 10,000."""
    lines = [
        "\n",
        "no JSON\n",
        *(json.dumps({"id": i, "k": 1}) + "\n" for i in range(10_050)),
        '{"id": "empty"}\n',
    ]
    (tmp_path / "a.ndjson").write_text("".join(lines))
    code, said = shell("load", tmp_path / "a.ndjson", "--key", "id", "--columns", "k", "--as", "hash")
    assert code == 1
    assert "key 'empty': every field is null" in said
    assert "row 1: no JSON" in said


@pytest.mark.parametrize("more", [(), ("--as", "hash")])
def test_lone_surrogates_fail_alone(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    # msgspec, which need not be there, takes none.
    monkeypatch.setitem(sys.modules, "msgspec", None)
    rows = ['{"k": "\\ud800"}', '{"k": "a", "t": "\\ud800"}', '{"k": "b", "\\ud800": 1}', '{"k": "c"}']
    path, bad = tmp_path / "a.ndjson", tmp_path / "bad.ndjson"
    path.write_text("\n".join(rows))
    code, said = shell("load", path, "--key", "k", "--on-error", bad, *more)
    assert (code, "1 written, 3 failed" in said) == (1, True)
    assert shell.client.keys() == [b"c"]
    assert [json.loads(line)["item"] for line in bad.read_text().splitlines()] == [
        json.loads(row) for row in rows[:3]
    ]


def test_names_with_a_zero_byte_fail_alone_in_hashes(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"k": "a", "x\\u0000y": 1}\n{"k": "b"}\n')
    code, said = shell("load", path, "--key", "k", "--as", "hash")
    assert (code, "key 'a': a field's name with a zero byte" in said) == (1, True)
    assert shell.client.keys() == [b"b"]


@pytest.mark.parametrize("as_", ["value", "hash"])
@pytest.mark.parametrize("rows", [1, 3000])
def test_columns_that_no_line_has(shell: Shell, tmp_path: Path, as_: str, rows: int) -> None:
    """A name that was mistyped became a null in every row."""
    path = tmp_path / "a.ndjson"
    path.write_text("".join(json.dumps({"id": i, "name": "x"}) + "\n" for i in range(rows)))
    load = ["load", path, "--key", "id", "--as", as_, "--columns"]
    code, said = shell(*load, "nmae,name")
    assert code == 1
    assert said.splitlines()[-1] == "redis-fastbatch: column 'nmae': no row has it"
    # Hashes are written 10,000 at a time.
    assert shell.client.dbsize() == (0 if rows == 1 or as_ == "hash" else rows)
    with path.open("a") as file:
        file.write('{"id": "late", "nmae": 1}\n')
    assert shell(*load, "nmae,name")[0] == 0
    assert shell.client.dbsize() == rows + 1
    path.write_text("no JSON\n")
    code, said = shell(*load, "name")
    assert (code, "no row has it" in said) == (1, False)


def test_ndjson_as_hashes_of_any_fields(shell: Shell, tmp_path: Path) -> None:
    """Nested NaN was written as no JSON has it, and a field of a certain name ended the load."""
    path = tmp_path / "a.ndjson"
    row = {"id": 1, "redis-fastbatch key": "x", "{id}": "y", "kkkkkkkkkkkkkkkkkkkk": "z"}
    path.write_text(json.dumps({**row, "n": {"x": [float("nan"), "ä"]}}) + "\n")
    assert shell("load", path, "--key", "id", "--as", "hash")[0] == 0
    found = {name.decode(): value.decode() for name, value in shell.client.hgetall("1").items()}
    assert found == {**row, "id": "1", "n": '{"x": [null, "ä"]}'}
