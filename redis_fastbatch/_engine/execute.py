"""Batches of any commands, in flight: replies are only counted, or kept in order. See flight.py."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from redis.exceptions import RedisError

from redis_fastbatch._core.resp.command_chunks import CommandWriter
from redis_fastbatch._core.resp.encoder import Chunk
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyFormat, ReplyReader
from redis_fastbatch._engine.flight import COMMAND_ITEMS, NO_LIMIT, Explain, InFlightChunk, ServerFlight
from redis_fastbatch._engine.outcome import Failure, HookCaller, WriteOutcome, not_sent
from redis_fastbatch._engine.pacing import FIRST_KEYS, REPLY_BYTES, ROUND_BYTES, FlushTimer, ValueSizes
from redis_fastbatch._engine.read import READ_WINDOW
from redis_fastbatch._engine.write import WriteFlight
from redis_fastbatch._messages import format_command
from redis_fastbatch._redirections import error_text
from redis_fastbatch.errors import DecodeError


def named(error: Exception, position: int, command: Any, item: str = "command") -> Exception:
    """Return an error reply that says which command of the batch, or which row of a table, it is about."""
    if isinstance(error, UnicodeDecodeError):
        place = f"the reply to {item} {position} ({format_command(command)})"
        return DecodeError(f"{error.reason} in {place}, which is not {error.encoding}", error.start)
    if isinstance(error, ErrorReply):
        # The connection was lost while it was being explained.
        error = RedisError(str(error))
    error.args = (f"{item} {position} ({format_command(command)}): {error_text(error)}", *error.args[1:])
    return error


def failures_of(chunk: Chunk, errors: Iterable[tuple[int, Any]], item: str = "command") -> list[Failure]:
    """Return (position, command, error) for the error replies to a chunk, each given with its item's index."""
    refused = list(errors)
    if not refused:
        return []
    positions, commands = chunk.keys, chunk.values
    found = [(positions[i], commands[i], error) for i, error in refused]
    return [(position, command, named(error, position, command, item)) for position, command, error in found]


def unread(commands: Iterable[Any], position: int, error: BaseException) -> list[Failure]:
    """Return failures for commands that were taken from the source, from a position on, and not sent."""
    unsent = not_sent(error)
    return [(position + i, command, unsent) for i, command in enumerate(commands)]


class ExecuteFlight(WriteFlight):
    """A batch of commands in flight, whose replies are only counted.

    Args:
        writer: encodes the commands: a CommandWriter, or a TemplateWriter of a table's rows.
        outcome: records what became of them. Their keys are their positions.
        repeatable: whether commands of unknown outcome may be sent again.
    """

    def __init__(self, writer: CommandWriter, outcome: WriteOutcome, *, repeatable: bool) -> None:
        super().__init__(writer, writer.command, outcome, repeatable=repeatable)
        # A command that a loading server refuses may be followed by one that it has carried out.
        self.wait_while_loading = repeatable
        self._commands = writer

    def _read(self, reader: ReplyReader, oldest: InFlightChunk, wanted: int) -> int:
        return reader.skip(wanted, oldest.done, oldest.non_ok_replies)

    def _settle_each(self, settled: InFlightChunk, non_ok_replies: Iterable[tuple[int, Any]]) -> None:
        failed = failures_of(settled.chunk, non_ok_replies, self.report.item)
        self._record(settled, settled.chunk.count - len(failed), failed=failed)

    def _fail_all(
        self, refused: InFlightChunk, error: Exception, own_errors: dict[int, Exception] | None = None
    ) -> None:
        # Replies that have come before the connection was lost are the outcome of their commands.
        done, chunk = refused.done, refused.chunk
        failed = failures_of(chunk, (each for each in refused.non_ok_replies if each[0] < done), self.report.item)
        written = done - len(failed)
        failed += [(position, chunk.values[done + i], error) for i, position in enumerate(chunk.keys[done:])]
        self._record(refused, written, failed=failed)

    def ended_before(self, items: Iterable[Any], error: BaseException) -> None:
        self.outcome.record(failed=unread(items, self._commands.position, error))
        self.outcome.deliver()


class ReplyFlight(ServerFlight):
    """A batch of commands in flight whose replies are kept, in the order of the commands.

    A command that could not be encoded has its error in the place of a reply.

    Args:
        writer: encodes the commands.
        out: gets the replies.
        sizes: what is known of the replies' sizes, which the flight learns.
        form: how replies become Python objects.
        limit: the most commands that are sent before any reply is read.
    """

    def __init__(
        self,
        writer: CommandWriter,
        out: list[Any],
        sizes: ValueSizes,
        form: ReplyFormat,
        limit: int = COMMAND_ITEMS,
    ) -> None:
        super().__init__(writer, HookCaller())
        self.wait_while_loading = False
        self._out = out
        self._sizes = sizes
        self._form = form
        self._limit = limit
        self._first = writer.position
        self._size = 0
        self._unencoded: deque[tuple[int, Exception]] = deque()

    @property
    def _takes_items(self) -> bool:
        return not (self._writer.exhausted or self._spent)

    @property
    def _spent(self) -> bool:
        # Commands that were put into a chunk are sent, whatever has been read since.
        return self._filling is None and self._size >= ROUND_BYTES

    @property
    def _full(self) -> bool:
        # The first reply is waited for: many of unknown size would fill the server's memory.
        return len(self._in_flight) >= (READ_WINDOW if self._sizes.known else 1)

    def _encode(self, budget: int | None) -> None:
        writer = self._writer
        writer.max_items = min(self._limit, self._sizes.keys_for(REPLY_BYTES, FIRST_KEYS))
        filling = self._filling = self._filling or InFlightChunk(writer.blank(), 0)
        chunk = filling.chunk
        if budget is None:
            writer.fill_some(chunk, NO_LIMIT)
        else:
            timer = self._flush_timer = self._flush_timer or FlushTimer()
            timer.fill(writer, chunk, budget)
        self._unencoded.extend((position, error) for position, _, error in writer.failures)
        writer.failures.clear()
        if chunk.sealed:
            self._filling = None
            if chunk.count:
                self._ready.append(filling)
        if not (self._in_flight or self._ready or self._filling):
            self._place_unencoded()

    def started(self, chunk: Chunk) -> None:
        self._in_flight.append(self._ready.popleft())

    def finished(self, chunk: Chunk) -> None:
        """Do nothing: whatever has left, nothing is sent again."""

    def receive(self, reader: ReplyReader, explain: Explain, budget: int | None = None) -> None:
        self._form.explain = explain
        while self._in_flight:
            oldest = self._in_flight[0]
            chunk, before = oldest.chunk, len(reader)
            wanted = chunk.count - oldest.done
            replies: list[Any] = []
            errors: list[int] = []
            read = reader.replies(wanted if budget is None else min(wanted, budget), replies, errors, self._form)
            self._sizes.saw(read, before - len(reader))
            self._size += before - len(reader)
            if errors:
                positions = chunk.keys
                for i in errors:
                    item = oldest.done + i
                    replies[i] = named(replies[i], positions[item], chunk.values[item])
            self._keep(oldest, replies)
            oldest.done += read
            if oldest.done < chunk.count:
                return
            self._in_flight.popleft()
            self.settled += 1
            if not self._in_flight:
                self._place_unencoded()
            if budget is not None:
                return

    def _keep(self, oldest: InFlightChunk, replies: list[Any]) -> None:
        if not self._unencoded:
            self._out += replies
            return
        for position, reply in zip(oldest.chunk.keys[oldest.done :], replies, strict=False):
            self._place_unencoded(position)
            self._out.append(reply)

    def _place_unencoded(self, before: int = NO_LIMIT) -> None:
        """Put the errors of commands that could not be encoded into their places, up to a position."""
        while self._unencoded and self._unencoded[0][0] < before:
            if self._unencoded[0][0] != self._first + len(self._out):
                # Commands between here and there have no reply yet.
                return
            self._out.append(self._unencoded.popleft()[1])

    def connection_lost(self) -> bool:
        return not self._in_flight

    def abort(self, error: BaseException) -> None:
        self._in_flight.clear()
        self._ready.clear()
