"""The command line: `redis-fastbatch load | dump | bench | demo`, one module for each command."""

from redis_fastbatch.cli.entry import main, program

__all__ = ["main", "program"]
