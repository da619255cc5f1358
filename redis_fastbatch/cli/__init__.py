"""The command line: `redis-fastbatch load | dump | bench | demo`, a module a command."""

from redis_fastbatch.cli.entry import main

__all__ = ["main"]
