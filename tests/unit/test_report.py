"""BatchReport as a notebook shows it."""

from __future__ import annotations

from redis_fastbatch import BatchReport, EncodeError
from redis_fastbatch.report import HTML_FAILURES


def test_a_notebook_shows_counts_and_rates() -> None:
    html = BatchReport(written=12_345, bytes_sent=1_000_000, seconds=0.5)._repr_html_()

    assert "<td>12,345</td>" in html
    assert "<td>24,690</td>" in html
    assert "failed key" not in html


def test_a_notebook_shows_failed_keys_as_text() -> None:
    report = BatchReport()
    report.add_failure("<b>", EncodeError("a & b", "<b>"))

    html = report._repr_html_()

    assert "&lt;b&gt;" in html
    assert "a &amp; b" in html
    assert "<b>" not in html


def test_a_notebook_shows_the_first_failures_only() -> None:
    report = BatchReport()
    for number in range(HTML_FAILURES + 5):
        report.add_failure(number, ValueError("no"))

    html = report._repr_html_()

    assert html.count("<code>") == HTML_FAILURES
    assert "and 5 more" in html
