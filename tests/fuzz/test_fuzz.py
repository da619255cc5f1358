"""A short run of each fuzzer. tests/fuzz/README.md has the long run with sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.engine import LastInput, fuzz
from fuzz.targets import TARGETS, corpus_of
from tiers import by_tier


@pytest.mark.parametrize("name", TARGETS)
def test_kept_and_new_inputs_have_right_results(name: str) -> None:
    target, corpus = TARGETS[name], corpus_of(name)
    assert len(corpus) > 20
    fuzz(target.check, corpus, target.tokens, runs=len(corpus) + by_tier(1000, 20_000), seed=len(name))


def test_an_input_with_a_wrong_result_is_reported(tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        assert b"!" not in data

    with pytest.raises(AssertionError, match="input number") as caught:
        fuzz(check, [b"abc"], [b"!"], runs=1000, last_input=tmp_path / "last")
    assert repr(LastInput.of(tmp_path / "last")) in str(caught.value)


def test_concurrent_runs_have_separate_files(tmp_path: Path) -> None:
    """A run must not truncate the file of another run, whose process would crash with a bus error."""
    ours, theirs = (LastInput(tmp_path / "last") for _ in range(2))
    ours.set(b"ours")
    theirs.set(b"theirs")
    assert LastInput.of(tmp_path / "last") == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
