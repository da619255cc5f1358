"""The figures in the documentation are those of the results files."""

from __future__ import annotations

import pytest

pytest.importorskip("ormsgpack", reason="the benchmarks need the extra `bench`")

from benchmarks import figures


@pytest.mark.parametrize("page", figures.PAGES, ids=str)
def test_pages_hold_what_was_measured(page: object) -> None:
    text = (figures.ROOT / str(page)).read_text(encoding="utf-8")
    assert figures.blocks(text)
    assert figures.filled(text) == text, "write the figures into the pages with `python -m benchmarks figures`"


def test_every_block_has_its_table() -> None:
    for page in figures.PAGES:
        text = (figures.ROOT / page).read_text(encoding="utf-8")
        assert set(figures.blocks(text)) <= set(figures.TABLES)
        assert text.count("<!-- figures:") == len(figures.blocks(text)) == text.count("<!-- end of figures -->")
