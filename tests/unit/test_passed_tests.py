"""What `pytest --rest` leaves out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"

CONFTEST = """
from passed_tests import PassedTests

def pytest_configure(config):
    config.pluginmanager.register(PassedTests())
"""

TESTS = """
import pytest
from hypothesis import given, settings, strategies
from tiers import by_tier, examples

def larger():
    return by_tier(1, 2)

@pytest.mark.parametrize("number", [1, 2])
def test_plain(number):
    pass

@pytest.mark.xdist_group("together")
def test_in_a_group():
    pass

def test_larger_in_the_full_tier():
    assert larger() == 1

@given(strategies.integers())
@settings(max_examples=examples(20))
def test_with_fewer_examples(number):
    pass

def test_after_those():
    pass

def test_failing():
    raise ValueError("on purpose")

def test_skipped():
    pytest.importorskip("no_module_has_this_name")
"""


@pytest.mark.full
def test_only_tests_that_passed_and_stay_the_same_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_all.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "--dist", "loadgroup", f"--rootdir={tmp_path}"]
    path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert b"1 failed, 6 passed, 1 skipped" in run.stdout
    left_out = json.loads((tmp_path / ".pytest_cache/v/redis_fastbatch/passed").read_text())
    names = ["test_after_those", "test_in_a_group", "test_plain[1]", "test_plain[2]"]
    assert left_out == [f"test_all.py::{name}" for name in names]
