"""`load` reads the same rows from CSV as the standard library's reader."""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_fastbatch.cli import csv_input, inputs
from redis_fastbatch.cli.common import CliError
from tiers import examples

pa = pytest.importorskip("pyarrow")

Rows = list[tuple[int, tuple[str, ...]]]

CELLS = st.text(alphabet='a"\r\n, é0;', max_size=6) | st.text(st.characters(codec="utf-8"), max_size=4)
TABLES = st.integers(1, 3).flatmap(
    lambda columns: st.lists(st.lists(CELLS, min_size=columns, max_size=columns), min_size=1, max_size=12)
)


def read(source: str, head: int, block: int) -> tuple[Rows, Rows]:
    """Return the good rows and the failed rows that `load` reads, each with the line where it begins."""
    options = argparse.Namespace(
        file=source, key="k", format="csv" if source == "-" else None, delimiter=None, types=["*=string"], nulls=[]
    )
    good: Rows = []
    failed: Rows = []
    sizes = mock.patch.multiple(csv_input, CSV_HEAD=head, CSV_BLOCK=block)
    with sizes, inputs.open_input(options) as opened:
        assert opened.csv is not None
        opened.csv.on_failure = lambda line, item, error: failed.append((line, tuple(item)))
        for batch in opened.reader:
            for row in batch.to_pylist():
                # Arrow has null for an empty key.
                cells = tuple("" if cell is None else cell for cell in row.values())
                good.append((opened.csv.line_of(len(good)), cells))
        assert opened.csv.report.failed == len(failed)
    return good, failed


def expected(data: bytes, head: int) -> tuple[Rows, Rows]:
    """Return the rows that the standard library reads, in the form of read()."""
    text = data.decode()
    # The command takes the line end of the first block for the whole file.
    line_end = "\n" if b"\n" in data[:head] else "\r"
    place = 0

    def lines() -> Iterator[str]:
        nonlocal place
        for line in io.StringIO(text, newline=""):
            place += len(line)
            yield line

    good: Rows = []
    failed: Rows = []
    columns = begin = 0
    for row in csv.reader(lines()):
        line, begin = 1 + text.count(line_end, 0, begin), place
        if row and columns:
            (good if len(row) == columns else failed).append((line, tuple(row)))
        columns = columns or len(row)
    return good, failed


@settings(deadline=None, max_examples=examples(150))
@given(
    rows=TABLES,
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    block=st.integers(1, 40),
    head=st.sampled_from([200, 1_000_000]),
    compression=st.sampled_from(["", ".gz", ".zst", ".bz2"]),
)
def test_any_file_of_csv_writer_is_read_in_blocks_of_any_size(
    rows: list[list[str]], quoting: Any, line_end: str, block: int, head: int, compression: str
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=quoting, lineterminator=line_end)
    writer.writerow(["k", "b", "c"][: len(rows[0])])
    writer.writerows(rows)
    data = out.getvalue().encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.csv{compression}")
        kind = {"": None, ".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[compression]
        if kind is None:
            path.write_bytes(data)
        else:
            with pa.CompressedOutputStream(str(path), kind) as stream:
                stream.write(data)
        assert read(str(path), head, block) == expected(data, head)


@settings(deadline=None, max_examples=examples(150))
@given(text=st.text(alphabet='a",\r\n', max_size=60), block=st.integers(1, 40))
@pytest.mark.skipif(sys.platform == "win32", reason="standard input has no descriptor to wait for there")
def test_any_text_from_standard_input_is_read(text: str, block: int) -> None:
    data = b"k,b\n" + text.encode()
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    *_, last = csv.reader([*io.StringIO(data.decode(), newline=""), ",last"])
    with open(reading) as stdin, mock.patch.object(sys, "stdin", stdin):
        if last == ["", "last"]:
            assert read("-", 200, block) == expected(data, 200)
        else:
            with pytest.raises(CliError, match="the file ends within quotes"):
                read("-", 200, block)


def test_a_quick_check_accepts_only_the_types_form() -> None:
    """A quick check tries a cast instead of the pattern. It accepts only text that the pattern accepts."""
    from redis_fastbatch.cli.csv_types import INFERRED

    chance = random.Random(5)
    cells = ["2024-05-01T12:30:00", "2024-05-01 12:30:00Z", "0000-01-01 00:00:00", "0001-01-01T00:00:00Z"]
    cells += ["2024-05-01T12+00:00", "2024-05-01T12:30+01", "2024-05-01", "true", "12", "-5", "1.5"]
    taken = 0
    for _ in range(3000):
        cell = chance.choice(cells)
        place = chance.randrange(len(cell))
        cell = cell[:place] + chance.choice(["", *"0159-:.TZ+ \n"]) + cell[place + chance.randrange(2) :]
        for rule in INFERRED:
            if cell and rule.converted(pa.array([cell], pa.string())) is not None:
                assert re.fullmatch(rule.form or "", cell), (rule.name, cell)
                taken += 1
    assert taken > 300
