"""Runs the command line in this process, against one server."""

from __future__ import annotations

from typing import Any

import redis

from redis_fastbatch import FastBatch
from redis_fastbatch.cli import main
from redis_fastbatch.server import EmbeddedServer


class Shell:
    """Runs the command line against one server, which is empty at first."""

    def __init__(self, server: EmbeddedServer, client: redis.Redis, capsys: Any) -> None:
        self.url = f"redis://{server.host}:{server.port}"
        self.client = client
        self.batch = FastBatch(client)
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str]:
        """Run a command. Return its exit code and what it wrote to standard error."""
        code = main([str(argument) for argument in arguments] + ["--url", self.url])
        return code, self._capsys.readouterr().err
