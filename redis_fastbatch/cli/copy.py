"""`redis-fastbatch copy`: copies keys of every type, with their expiry, from a server or cluster to another."""

from __future__ import annotations

import argparse
import time
from typing import Any

from redis_fastbatch._transports.threads import affordable, run_threads
from redis_fastbatch.cli.checkpoints import StateFile
from redis_fastbatch.cli.common import EXIT_FAILED, EXIT_INTERRUPTED, CliError, connect, positive, say
from redis_fastbatch.cli.compare import Comparison
from redis_fastbatch.cli.copying import Copy, Counts
from redis_fastbatch.cli.dump_versions import check_versions
from redis_fastbatch.cli.failed_rows import FailedRows
from redis_fastbatch.cli.segments import KeySegments
from redis_fastbatch.client import FastBatch
from redis_fastbatch.report import make_progress

SAMPLE = 1000

EXAMPLES = """\
examples:
  redis-fastbatch copy --from redis://old:6379/0 --to redis://new:6379/0
  redis-fastbatch copy --from redis://old --to redis://node-of-cluster --match 'user:*' --replace --verify
  redis-fastbatch copy --from redis://old --to redis://new --workers 2 --resume copy.state --on-error failed.ndjson
"""


def add_to(commands: Any, name: str, summary: str) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description="Copy keys of every type with DUMP and RESTORE. Source and target are single servers or any "
        "node of a cluster, which is found out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", required=True, dest="source", metavar="URL", help="the source")
    parser.add_argument("--to", required=True, dest="target", metavar="URL", help="the target")
    parser.add_argument("--match", metavar="PATTERN", help="only keys of this pattern, such as 'user:*'")
    parser.add_argument("--type", metavar="TYPE", help="only keys of this type, such as string, hash or stream")
    parser.add_argument("--replace", action="store_true", help="replace keys that exist; without this they fail")
    parser.add_argument(
        "--ttl", choices=("keep", "drop"), default="keep",
        help="keys expire when those of the source do (the default), or never",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="connections that copy in parallel (default: 1)"
    )
    parser.add_argument(
        "--resume", metavar="STATE",
        help="keep the state of the copy here, and go on from there if it exists; it is removed at the end",
    )  # fmt: skip
    parser.add_argument(
        "--verify", nargs="?", type=_sample, const=SAMPLE, metavar="N|all",
        help=f"afterwards compare N keys of the source ({SAMPLE} by default), or all, with the target",
    )  # fmt: skip
    parser.add_argument(
        "--on-error", default="report", metavar="report|stop|FILE.ndjson",
        help="what to do with keys that cannot be copied: print ten of them at the end (the default), stop after "
        "the first ones, or write all of them to a file",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    parser.set_defaults(run=run)


def _sample(text: str) -> int | None:
    return 0 if text == "all" else positive(text)


def run(options: argparse.Namespace) -> int:
    """Copy the keys; return 0 only if all were copied, and none differs."""
    with connect_to_any(options.source) as source, connect_to_any(options.target) as target:
        code = _copy(options, source, target)
        if options.verify is None or code == EXIT_INTERRUPTED:
            return code
        return _verify(options, source, target) or code


def connect_to_any(url: str) -> FastBatch:
    """Connect to a server, or to the whole cluster if it is a node of one."""
    batch = connect(url)
    if not batch.client.info("cluster").get("cluster_enabled"):
        return batch
    batch.close()
    return connect(url, cluster=True)


def _copy(options: argparse.Namespace, source: FastBatch, target: FastBatch) -> int:
    job = {name: getattr(options, name) for name in ("match", "type", "replace", "ttl")}
    state = StateFile(options.resume, job)
    found = state.found or {}
    failures = FailedRows(options.on_error, place="key", size=found.get("failures", 0))
    first = KeySegments(source, options.match, options.type, {}, size=1).take()
    check_versions(source, target, first.keys if first is not None else [])
    progress = None if options.quiet else make_progress(True, None if options.match else source.client.dbsize())
    counts = Counts(progress)

    def settled(nodes: dict[str, int]) -> None:
        state.save({"nodes": nodes, "failures": failures.size()})

    segments = KeySegments(source, options.match, options.type, found.get("nodes", {}))
    copy = Copy(source, target, segments, counts, failures, options, resumed=state.found is not None)
    copy.on_settled = settled
    settled(segments.state)
    interrupted = False
    broken: Exception | None = None
    started = time.perf_counter()
    workers = min(affordable(batch.client, options.workers) for batch in (source, target))
    try:
        if workers == 1:
            copy.work()
        else:
            _in_threads(copy, segments, workers)
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        broken = error
    finally:
        if progress is not None:
            progress.close()
        failures.close()
    seconds = time.perf_counter() - started
    early = "interrupted: " if interrupted else "ended early: " if broken or failures.stopped else ""
    for line in counts.first_reasons:
        say(line)
    if not options.quiet or early:
        say(early + counts.summary(seconds))
    if early and options.resume:
        say("run the same command again to go on")
    if broken is not None:
        raise broken
    if interrupted:
        return EXIT_INTERRUPTED
    if not early:
        state.remove()
    return EXIT_FAILED if counts.failed or early else 0


def _in_threads(copy: Copy, segments: KeySegments, workers: int) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            copy.work()
        except BaseException as error:
            segments.stop()
            errors.append(error)

    run_threads([work] * workers, segments.stop)
    if errors:
        raise errors[0]


def _verify(options: argparse.Namespace, source: FastBatch, target: FastBatch) -> int:
    comparison = Comparison(source, target, ttl=options.ttl)
    segments = KeySegments(source, options.match, options.type, {}, size=min(options.verify or SAMPLE, SAMPLE))
    while (segment := segments.take()) is not None:
        left = options.verify - comparison.compared if options.verify else len(segment.keys)
        comparison.compare(segment.keys[:left])
        if options.verify and comparison.compared >= options.verify:
            break
    for line in comparison.first_differences:
        say(line)
    if not options.quiet or comparison.different:
        say(comparison.summary())
    if comparison.compared == 0 and comparison.gone == 0:
        raise CliError("there is nothing to verify: the source has no such keys")
    return EXIT_FAILED if comparison.different else 0
