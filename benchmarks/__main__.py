"""`python -m benchmarks`: see README.md in this directory."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    aio,
    calls,
    cluster,
    codec,
    commands,
    compression,
    engine,
    environment,
    figures,
    hashes,
    lag,
    latency,
    load,
    memory,
    network,
    pipelines,
    results,
    scaling,
    table,
    tables,
    targets,
    workers,
)
from benchmarks.results import Cell, Results
from benchmarks.servers import BINARIES
from benchmarks.shapes import SHAPES

FEW = 10_000
EVERYTHING = (
    "codec --shapes dict5,flight --sizes 10000 --name codec",
    "engine --shapes dict5,flight --servers valkey --rounds 7 --large-rounds 3 --name engine",
    "calls --turns 25 --name calls",
    "commands --name commands",
    "compression --name compression",
    "pipelines --name pipelines",
    "hashes --name hashes",
    "cluster --shapes dict5 --rounds 7 --name cluster",
    "aio --rounds 7 --name aio",
    "network --name network",
    "table --rounds 5 --name table",
)
"""The commands of `all`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours, the peers and the floor.")
    subparsers = parser.add_subparsers(required=True)

    engine_command = subparsers.add_parser("engine", help="batches to a server and back")
    _add_scope(engine_command)
    _add_servers(engine_command)
    engine_command.add_argument("--ops", type=_words(engine.OPERATIONS), default=list(engine.OPERATIONS))
    engine_command.add_argument(
        "--codec", choices=("msgpack", "json"), default="msgpack", help="json: against peers that store JSON"
    )
    engine_command.set_defaults(command=_run_engine)

    codec_command = subparsers.add_parser("codec", help="encoding and decoding alone")
    _add_scope(codec_command)
    codec_command.set_defaults(command=_run_codec)

    all_command = subparsers.add_parser("all", help="the commands that write the results files: half an hour")
    all_command.set_defaults(command=_run_all)

    for module, shown in (
        (memory, "peak memory of long streams"),
        (load, "peak memory of loading large files"),
        (scaling, "cost of an item in batches of different sizes"),
        (latency, "effect of a load on the server's other clients"),
        (lag, "how long batches hold an event loop at a time, and what holds it"),
        (workers, "gain of several workers"),
        (calls, "small batches, call by call"),
        (commands, "batches of any commands"),
        (compression, "compressed values: bytes stored, and time"),
        (pipelines, "pipelines of commands, against redis-py's"),
        (hashes, "hashes, written and read"),
        (figures, "put the figures of the results files into the documentation"),
    ):
        own_command = subparsers.add_parser(module.__name__.rpartition(".")[2], help=shown)
        module.add_arguments(own_command)
        own_command.set_defaults(command=module.run)

    for module, shown in (
        (aio, "batches on an event loop"),
        (cluster, "batches over a cluster"),
        (network, "batches over slower networks, and TLS"),
        (table, "tables"),
    ):
        cells_command = subparsers.add_parser(module.__name__.rpartition(".")[2], help=shown)
        module.add_arguments(cells_command)
        cells_command.add_argument("--name", help="write results/<name>.json and .md")
        cells_command.set_defaults(command=functools.partial(_run_cells, module), targets=False)

    show_command = subparsers.add_parser("show", help="print a results file")
    show_command.add_argument("file", type=Path)
    show_command.add_argument("--targets", action="store_true", help="only the target figures")
    show_command.set_defaults(command=_show)
    return parser


def _add_scope(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", type=_words(SHAPES), default=list(SHAPES))
    parser.add_argument("--sizes", type=_numbers, default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--large-rounds", type=int, default=5, help=f"rounds of more than {FEW:,} items")
    parser.add_argument(
        "--repeats",
        type=int,
        default=10,
        help="how many rounds of a batch may be measured again because other programs were busy",
    )
    parser.add_argument("--targets", action="store_true", help="print the target figures too")
    parser.add_argument("--name", help="write results/<name>.json and .md")


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--servers", type=_words(BINARIES), default=["valkey", "redis7"])
    parser.add_argument(
        "--only", type=_strings, default=[], help="only peers whose names contain one of these parts"
    )
    parser.add_argument("--fresh", action="store_true", help="empty the server before each write")


def _strings(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _numbers(text: str) -> list[int]:
    return [int(word.replace("_", "")) for word in _strings(text)]


def _words(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        words = _strings(text)
        unknown = set(words) - set(known)
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return words

    return parse


def _run_engine(options: argparse.Namespace) -> int:
    return _measure(options, options.servers, _engine_cells(options))


def _run_codec(options: argparse.Namespace) -> int:
    return _measure(options, [], _codec_cells(options))


def _run_cells(module: Any, options: argparse.Namespace) -> int:
    return _measure(options, ["valkey", "redis7"] if module is network else ["valkey"], module.cells(options))


def _run_all(_: argparse.Namespace) -> int:
    codes = []
    for words in EVERYTHING:
        began = time.monotonic()
        print(f"\n# python -m benchmarks {words}\n", flush=True)
        codes.append(main(words.split()))
        print(f"\n{time.monotonic() - began:,.0f} seconds", flush=True)
    return max(codes)


def _engine_cells(options: argparse.Namespace) -> Iterable[Cell]:
    plan = engine.Plan(
        options.servers,
        options.shapes,
        options.sizes,
        options.ops,
        _rounds(options),
        options.repeats,
        options.only,
        options.fresh,
        options.codec,
    )
    return engine.run(plan)


def _codec_cells(options: argparse.Namespace) -> Iterable[Cell]:
    return codec.run(options.shapes, options.sizes, _rounds(options), options.repeats)


def _rounds(options: argparse.Namespace) -> Callable[[int], int]:
    return lambda size: options.rounds if size <= FEW else options.large_rounds


def _measure(options: argparse.Namespace, servers: Sequence[str], cells: Iterable[Cell]) -> int:
    measured = Results(environment.describe(servers))
    print(tables.circumstances(measured.environment), flush=True)
    for cell in cells:
        measured.cells.append(cell)
        print(f"\n{tables.cell(cell)}", flush=True)
        # Saved after each cell, so that an interruption loses only the rest.
        if options.name:
            _save(measured, options.name)
    if options.targets:
        print(f"\n{tables.targets(targets.outcomes(measured))}")
    return 0


def _save(measured: Results, name: str) -> None:
    path = results.DIRECTORY / f"{name}.json"
    measured.save(path)
    path.with_suffix(".md").write_text(_document(measured), encoding="utf-8")


def _show(options: argparse.Namespace) -> int:
    loaded = results.load(options.file)
    print(tables.targets(targets.outcomes(loaded)) if options.targets else _document(loaded), end="")
    return 0


def _document(measured: Results) -> str:
    return tables.document(measured, targets.outcomes(measured))


if __name__ == "__main__":
    sys.exit(main())
