"""`redis-fastbatch delete`: deletes the keys of a pattern, in bounded memory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import Any

from redis_fastbatch._messages import format_key
from redis_fastbatch.cli.common import add_server, connect, say
from redis_fastbatch.report import make_progress

KEYS_AT_ONCE = 20_000
SHOWN_KEYS = 10

EXAMPLES = """\
examples:
  redis-fastbatch delete --match 'user:*' --dry-run
  redis-fastbatch delete --match 'session:*' --type hash
"""


def add_to(commands: Any, name: str, summary: str) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        name,
        help=summary,
        description="Delete the keys of a pattern with UNLINK: the server frees their memory in the background.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--match", required=True, metavar="PATTERN", help="such as 'user:*'; '*' is every key")
    parser.add_argument("--type", metavar="TYPE", help="only keys of this type, such as string, hash or stream")
    parser.add_argument("--dry-run", action="store_true", help="count the keys, print ten of them, delete nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_server(parser, cluster=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Delete or count the keys."""
    done = 0
    complete = False
    progress = None if options.quiet else make_progress(True, None)
    with connect(options.url, cluster=options.cluster) as batch:
        scan = batch.scan(options.match, type=options.type)
        first: list[bytes] = []
        try:
            for keys in _lists(scan):
                first += keys[: SHOWN_KEYS - len(first)]
                done += len(keys) if options.dry_run else batch.batch_delete(keys)
                if progress is not None:
                    progress.update(done)
            complete = True
        finally:
            if progress is not None:
                progress.close()
            if not options.quiet or not complete:
                early = "" if complete else "ended early: "
                say(f"{early}{done:,} keys {'match' if options.dry_run else 'deleted'}")
    if options.dry_run and not options.quiet:
        for key in first:
            say(f"  {format_key(key)}")
        if done > len(first):
            say(f"  ... and {done - len(first):,} more; nothing was deleted")
    return 0


def _lists(scan: Iterator[Any]) -> Iterator[list[bytes]]:
    """Yield lists of keys. SCAN may return a key twice."""
    while some := list(islice(scan, KEYS_AT_ONCE)):
        yield list(dict.fromkeys(some))
