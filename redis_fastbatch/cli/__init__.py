"""The command line: `redis-fastbatch load | dump | bench | demo`, a module a command."""

from redis_fastbatch.cli.entry import main, program

__all__ = ["main", "program"]
