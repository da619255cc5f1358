"""A short run of the fuzzers; the long one, under sanitizers, is in tests/fuzz/README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.engine import Witness, fuzz
from fuzz.targets import TARGETS, corpus_of
from tiers import by_tier


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_worth_keeping_and_some_new_ones(name: str) -> None:
    target, corpus = TARGETS[name], corpus_of(name)
    assert len(corpus) > 20
    fuzz(target.check, corpus, target.tokens, runs=len(corpus) + by_tier(1000, 40_000), seed=len(name))


def test_an_input_dealt_with_wrongly_is_told(tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        assert b"!" not in data

    with pytest.raises(AssertionError, match="input number") as caught:
        fuzz(check, [b"abc"], [b"!"], runs=1000, witness=tmp_path / "last")
    assert repr(Witness.of(tmp_path / "last")) in str(caught.value)


def test_two_runs_at_once_have_an_input_each(tmp_path: Path) -> None:
    """The second cut the first one's file short, which killed it with a bus error."""
    ours, theirs = (Witness(tmp_path / "last") for _ in range(2))
    ours.note(b"ours")
    theirs.note(b"theirs")
    assert Witness.of(tmp_path / "last") == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
