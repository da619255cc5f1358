"""Which tests `pytest --rest` leaves out: those that passed in the last run of the default tier.

A test that is larger in the full tier runs in both.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

import tiers

KEY = "redis_fastbatch/passed"
ID = pytest.StashKey[str]()


def passed_before(config: pytest.Config) -> set[str]:
    """Return the ids of the tests that need not run again."""
    passed = config.cache.get(KEY, None) if hasattr(config, "cache") else None
    if not passed:
        raise pytest.UsageError("--rest needs the tests that `pytest` has passed, found none: run `pytest` first")
    return set(passed)


class PassedTests:
    """A plugin that writes ids to pytest's cache: those of passed tests that are not larger in the full tier."""

    def __init__(self) -> None:
        self._passed: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the ids, because pytest-xdist adds the names of groups to them."""
        for item in items:
            item.stash[ID] = item.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin with what is known before a test runs: tests with Hypothesis have fewer examples."""
        tiers.asked = item.get_closest_marker("hypothesis") is not None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send the id with the report, as the process that runs the test need not be the one that writes."""
        report = yield
        if report.when == "call" and report.passed and not tiers.asked:
            report.user_properties.append((KEY, item.stash[ID]))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the id of a test."""
        self._passed.update(str(value) for name, value in report.user_properties if name == KEY)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the ids."""
        config = session.config
        if hasattr(config, "cache") and not hasattr(config, "workerinput") and not config.option.collectonly:
            config.cache.set(KEY, sorted(self._passed))
