"""python -m fuzz <target> [--runs N] [--seed N] [--keep FILE] [--last]; see README.md."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fuzz.engine import LastInput, fuzz
from fuzz.targets import TARGETS, corpus_of

LONGEST_KEPT = 150


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last", action="store_true", help="print the last input of the run before")
    parser.add_argument("--keep", type=Path, help="write short inputs that reached new code to this file, as hex")
    options = parser.parse_args()
    last_input = Path(tempfile.gettempdir(), f"fuzz-{options.target}-last-input")
    if options.last:
        print(LastInput.of(last_input))
        return
    target = TARGETS[options.target]
    found = fuzz(
        target.check,
        corpus_of(options.target),
        target.tokens,
        runs=options.runs,
        seed=options.seed,
        last_input=last_input,
        on_progress=lambda line: print(f"{options.target}: {line}", flush=True),
    )
    print(f"{options.target}: {options.runs:,} inputs without a wrong result; {len(found):,} kept")
    if options.keep:
        options.keep.write_text("".join(f"{data.hex()}\n" for data in found if len(data) <= LONGEST_KEPT))


if __name__ == "__main__":
    main()
