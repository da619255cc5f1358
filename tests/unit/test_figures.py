"""The figures in the documentation are those of the results files."""

from __future__ import annotations

from typing import Any

import pytest

figures: Any = pytest.importorskip("benchmarks.figures", reason="needs the checkout, and the extra `bench`")

PAGES = [str(page) for page in figures.PAGES]


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    if not figures.results.DIRECTORY.exists():
        pytest.skip("the sdist has no results files")
    text: str = (figures.ROOT / request.param).read_text(encoding="utf-8")
    return text


def test_pages_hold_what_was_measured(page: str) -> None:
    assert figures.blocks(page)
    assert figures.filled(page) == page, "write the figures into the pages with `python -m benchmarks figures`"


def test_every_block_has_its_table(page: str) -> None:
    names = figures.blocks(page)
    assert set(names) <= set(figures.TABLES)
    assert page.count("<!-- figures:") == len(names) == page.count("<!-- end of figures -->")
