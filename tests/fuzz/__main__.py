"""python -m fuzz <target> [--runs N] [--seed N] [--keep FILE] [--last]; see README.md."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fuzz.engine import Witness, fuzz
from fuzz.targets import TARGETS, corpus_of

LONGEST_KEPT = 150


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last", action="store_true", help="show the input that was tried last")
    parser.add_argument(
        "--keep", type=Path, help="a file for the short ones of the inputs that reached new code, as hex"
    )
    options = parser.parse_args()
    witness = Path(tempfile.gettempdir(), f"fuzz-{options.target}-last-input")
    if options.last:
        print(Witness.of(witness))
        return
    target = TARGETS[options.target]
    found = fuzz(
        target.check,
        corpus_of(options.target),
        target.tokens,
        runs=options.runs,
        seed=options.seed,
        witness=witness,
        tell=lambda line: print(f"{options.target}: {line}", flush=True),
    )
    print(f"{options.target}: {options.runs:,} inputs, none dealt with wrongly; {len(found):,} worth keeping")
    if options.keep:
        options.keep.write_text("".join(f"{data.hex()}\n" for data in found if len(data) <= LONGEST_KEPT))


if __name__ == "__main__":
    main()
