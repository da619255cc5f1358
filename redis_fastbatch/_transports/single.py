"""Sends single commands over a client's connections, packed and read by the core.

It does what redis.Redis.execute_command() does for a command without a response callback, in a third of the calls.
A client that does anything of its own with its commands has to send them itself.
"""

from __future__ import annotations

import functools
from typing import Any

from redis.exceptions import ResponseError

from redis_fastbatch._core.resp.command_chunks import CommandWriter
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ReplyFormat
from redis_fastbatch._engine.command_rules import RULES
from redis_fastbatch._engine.flight import COMMAND_BYTES
from redis_fastbatch._transports.channels import SocketChannel
from redis_fastbatch._transports.redispy import key_encoding
from redis_fastbatch._transports.redispy import sync as redispy
from redis_fastbatch._transports.sync import Lease

UNSENT: Any = object()
"""In the place of a reply: nothing was sent, and the client has to send the command itself."""


class SingleCommands:
    """Sends single commands.

    Args:
        client: a redis.Redis, or any other client. Only those that send commands as redis.Redis does are used.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._usual = redispy.sends_as_usual(client)

    @functools.cached_property
    def _encoder(self) -> CommandEncoder:
        return CommandEncoder(*key_encoding(self._client), RULES)

    def ask(self, *words: str | bytes | int) -> Any:
        """Send a command, again after a lost connection if the client's retry policy says so.

        Args:
            words: the command's name and its arguments.

        Returns:
            The reply as the server sent it, strings as bytes. UNSENT if the client has to send the command.

        Raises:
            redis.exceptions.RedisError: as redis-py raises it.
        """
        if not self._usual:
            return UNSENT
        chunk = self._packed(words)
        if chunk is None:
            return UNSENT
        with Lease(self._client) as borrowed:
            if borrowed.ready is None:
                return UNSENT
            connection = borrowed.connection
            try:
                return connection.retry.call_with_retry(
                    lambda: _exchange(borrowed, chunk), lambda _: connection.disconnect()
                )
            except ResponseError:
                raise
            except BaseException:
                # Such as Ctrl-C, or bytes that are not RESP: the rest of the reply may still come.
                connection.disconnect()
                raise

    def _packed(self, words: tuple[str | bytes | int, ...]) -> Chunk | None:
        """Return the bytes of a command; None if it cannot be encoded, which redis-py explains."""
        writer = CommandWriter((words,), self._encoder, max_items=1, max_bytes=COMMAND_BYTES)
        chunk = writer.blank()
        writer.fill(chunk)
        return chunk if chunk.count else None


def _exchange(borrowed: Lease, chunk: Chunk) -> Any:
    """Send a command over a borrowed connection, and return its reply. Raise it if it is an error."""
    form = ReplyFormat(functools.partial(redispy.explain, borrowed.connection))
    replies: list[Any] = []
    with borrowed.channel() as channel:
        assert isinstance(channel, SocketChannel), "a connection of a known kind stays one when it connects again"
        channel.exchange(chunk)
        while not channel.reader.replies(1, replies, [], form):
            channel.receive_more()
        channel.finish()
    if isinstance(replies[0], Exception):
        raise replies[0]
    return replies[0]
