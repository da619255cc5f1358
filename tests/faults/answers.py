"""Error replies of servers, and replies that no server should send."""

from __future__ import annotations

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

# Error replies, the exception that redis-py makes from each, and whether it concerns the whole server.
ERRORS: dict[str, tuple[bytes, type[Exception], bool]] = {
    "OOM": (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", OutOfMemoryError, False),
    "READONLY": (b"-READONLY You can't write against a read only replica.\r\n", ReadOnlyError, True),
    "LOADING": (b"-LOADING Redis is loading the dataset in memory\r\n", BusyLoadingError, True),
    "NOPERM": (b"-NOPERM No permissions to access a key\r\n", NoPermissionError, False),
    "NOAUTH": (b"-NOAUTH Authentication required.\r\n", AuthenticationError, True),
    "BUSY": (b"-BUSY Redis is busy running a script.\r\n", ResponseError, True),
    "MASTERDOWN": (b"-MASTERDOWN Link with MASTER is down\r\n", MasterDownError, True),
    "MOVED": (b"-MOVED 3999 127.0.0.1:6381\r\n", ResponseError, False),
}
GARBAGE = {
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": b"\0" * 20,
    "line end": b"\r\n",
    "long line": b"+" + b"x" * 5000 + b"\r\n",
    "bulk of no length": b"$x\r\n",
    "bulk of negative length": b"$-7\r\n",
    "bulk of another length": b"$2\r\nabcdef\r\n",
    "array of no length": b"*x\r\n",
    "array of another length": b"*1\r\n$1\r\nx\r\n",
    "empty array": b"*0\r\n",
    "null array": b"*-1\r\n",
    "null": b"$-1\r\n",
    "null of RESP3": b"_\r\n",
    "bulk": b"$2\r\nOK\r\n",
    "queued": b"+QUEUED\r\n",
    "status": b"+PONG\r\n",
    "number": b":5\r\n",
    "minus one": b":-1\r\n",
    "double": b",1\r\n",
    "bool": b"#t\r\n",
    "map": b"%1\r\n+a\r\n+b\r\n",
    "nested": b"*1\r\n*1\r\n*1\r\n:1\r\n",
    "too deep": b"*1\r\n" * 500,
    "unknown type": b"?5\r\n",
}
PUSH = b">2\r\n+notice\r\n$7\r\n+OK\r\n:1\r\n"
ATTRIBUTE = b"|1\r\n+ttl\r\n:60\r\n"
