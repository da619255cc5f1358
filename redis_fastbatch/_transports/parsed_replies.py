"""Replies that a connection's public methods have parsed already, read by a flight as those of a ReplyReader."""

from __future__ import annotations

from collections import deque
from typing import Any, NoReturn

from redis.exceptions import InvalidResponse

from redis_fastbatch._core.codec import ValueCodec
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyFormat
from redis_fastbatch._redirections import is_wrong_type
from redis_fastbatch.errors import DecodeError

_NOTHING = object()


class ParsedError(ErrorReply):
    """An error reply that redis-py has made an exception from.

    Attributes:
        error: that exception.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def explain(reply: Any) -> Exception:
    """Return the exception that redis-py has made of an error reply."""
    error: Exception = reply.error
    return error


class ParsedReplies:
    """Parsed replies and how far they are read. Has the methods of a ReplyReader that flights use.

    len() is the size of the values that were not read, in bytes.

    Args:
        max_value_size: a longer value is refused, in bytes; 0 for no limit.
    """

    def __init__(self, max_value_size: int = 0) -> None:
        self._max_value_size = max_value_size
        self._replies: deque[Any] = deque()
        self._elements: deque[Any] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def feed(self, reply: Any) -> None:
        """Append a reply, an exception for an error."""
        self._replies.append(ParsedError(reply) if isinstance(reply, Exception) else reply)
        self._size += _size_of(reply)

    def finished(self) -> bool:
        """Return whether everything is read."""
        return not self._replies and not self._elements

    def broken(self, reason: str) -> NoReturn:
        """Raise the error about a reply that is not one that was expected."""
        raise InvalidResponse(reason)

    def reply(self) -> tuple[Any] | None:
        """Return the next reply in a tuple; None if there is none."""
        if not self._replies:
            return None
        reply = self._replies.popleft()
        self._size -= _size_of(reply)
        return (reply,)

    def statuses(self, limit: int, first: int, non_ok_replies: list[tuple[int, Any]], queued: bool = True) -> int:
        """Read up to `limit` replies, and return how many there were. See ReplyReader.statuses()."""
        quiet = ("OK", b"OK", "QUEUED", b"QUEUED") if queued else ("OK", b"OK")
        done = 0
        while done < limit and (whole := self.reply()) is not None:
            if not isinstance(whole[0], (str, bytes)) or whole[0] not in quiet:
                non_ok_replies.append((first + done, whole[0]))
            done += 1
        return done

    def skip(self, limit: int, first: int, errors: list[tuple[int, Any]]) -> int:
        """Count up to `limit` replies, and return how many there were. See ReplyReader.skip()."""
        done = 0
        while done < limit and (whole := self.reply()) is not None:
            if isinstance(whole[0], ErrorReply):
                errors.append((first + done, whole[0]))
            done += 1
        return done

    def replies(self, limit: int, out: list[Any], errors: list[int], form: ReplyFormat) -> int:
        """Append up to `limit` replies to `out`, and return how many there were. See ReplyReader.replies()."""
        done = 0
        while done < limit and (whole := self.reply()) is not None:
            size = _longest(whole[0])
            if 0 < self._max_value_size < size:
                raise DecodeError(f"a value of {size} bytes: max_value_size is {self._max_value_size}")
            try:
                reply = form.decoded(whole[0])
            except UnicodeDecodeError as error:
                reply = error
            if isinstance(reply, Exception):
                errors.append(done)
            out.append(reply)
            done += 1
        return done

    def array(self, expected: int) -> bool | ErrorReply:
        """Begin to read an array, whose elements values() reads. See ReplyReader.array()."""
        if not self._replies:
            return False
        reply = self._replies.popleft()
        if isinstance(reply, ErrorReply):
            return reply
        if not isinstance(reply, list):
            raise InvalidResponse(f"an array was expected, got {reply!r:.80}")
        if len(reply) != expected:
            raise InvalidResponse(f"an array of {expected} was expected, got one of {len(reply)}")
        self._elements.extend(ParsedError(each) if isinstance(each, Exception) else each for each in reply)
        return True

    def values(
        self,
        keys: list[Any],
        done: int,
        codec: ValueCodec,
        default: Any,
        out: dict[Any, Any] | list[tuple[Any, Any]],
        failures: list[tuple[Any, bytes | None, Exception]],
        most: int,
    ) -> int:
        """Read the values of `keys`, from key number `done` on. See ReplyReader.values()."""
        source = self._elements or self._replies
        while source and done < len(keys) and most > 0:
            key, reply = keys[done], source.popleft()
            self._size -= _size_of(reply)
            value = self._decoded(key, reply, codec, failures)
            value = default if value is _NOTHING else value
            if isinstance(out, dict):
                out[key] = value
            else:
                out.append((key, value))
            done += 1
            most -= 1
        return done

    def _decoded(
        self, key: Any, reply: Any, codec: ValueCodec, failures: list[tuple[Any, bytes | None, Exception]]
    ) -> Any:
        if reply is None:
            return _NOTHING
        if isinstance(reply, ErrorReply):
            if not is_wrong_type(reply):
                failures.append((key, None, reply))
            return _NOTHING
        if not isinstance(reply, bytes):
            raise InvalidResponse(f"a value of bytes was expected, got {reply!r:.80}")
        if 0 < self._max_value_size < len(reply):
            raise DecodeError(f"a value of {len(reply)} bytes: max_value_size is {self._max_value_size}", key=key)
        try:
            return codec.loads(reply)
        except DecodeError as error:
            error.key = key
            failures.append((key, reply, error))
            return _NOTHING


def _longest(reply: Any) -> int:
    """Return the size of the longest string in a reply, in bytes."""
    if isinstance(reply, (bytes, str)):
        return len(reply)
    if isinstance(reply, dict):
        return max(map(_longest, (*reply, *reply.values())), default=0)
    return max(map(_longest, reply), default=0) if isinstance(reply, (list, set)) else 0


def _size_of(reply: Any) -> int:
    if isinstance(reply, (bytes, str)):
        return len(reply)
    if isinstance(reply, dict):
        return sum(map(_size_of, (*reply, *reply.values())))
    return sum(map(_size_of, reply)) if isinstance(reply, list) else 0
