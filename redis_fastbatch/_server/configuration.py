"""The options of a server, and its configuration file."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

LOOPBACK: Final = "127.0.0.1"

# A bool becomes yes or no. A tuple or list becomes the arguments of one directive.
OptionValue = str | int | float | bool | Sequence[str | int | float]


class FreePort:
    """Type of FREE_PORT."""

    def __repr__(self) -> str:
        return "FREE_PORT"


FREE_PORT: Final = FreePort()
"""The value of an option that asks for a free loopback port; a new one is chosen if the server finds it taken."""

Options: TypeAlias = Mapping[str, "OptionValue | FreePort"]

DEFAULTS: Final[Options] = {
    "port": FREE_PORT,
    "bind": LOOPBACK,
    "save": "",
    "appendonly": False,
    "daemonize": False,
    "logfile": "",
    "unixsocketperm": 700,
}


def chosen_ports(options: Options) -> dict[str, int]:
    """Return the port numbers of the options: a free port for each FREE_PORT, and the number of `port`."""
    wanted = [name for name, value in options.items() if value is FREE_PORT]
    # All sockets stay open until all ports are chosen; otherwise the same port could come twice.
    held = [socket.create_server((LOOPBACK, 0)) for _ in wanted]
    try:
        chosen = {name: sock.getsockname()[1] for name, sock in zip(wanted, held, strict=True)}
    finally:
        for sock in held:
            sock.close()
    fixed = options["port"]
    return {"port": int(fixed), **chosen} if isinstance(fixed, (int, str)) else chosen


def configuration(settings: Mapping[str, object], directives: Sequence[str]) -> str:
    """Return a configuration file.

    Args:
        settings: the values of directives by name.
        directives: whole lines that follow.
    """
    lines = [_config_line(name, value) for name, value in settings.items()]
    return "\n".join([*lines, *directives, ""])


def _config_line(name: str, value: object) -> str:
    values = value if isinstance(value, (tuple, list)) else [value]
    return " ".join([name, *map(_config_word, values)])


def _config_word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return '"' + "".join(_config_escape(byte) for byte in os.fsencode(value)) + '"'
    return str(value)


def _config_escape(byte: int) -> str:
    plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
    return chr(byte) if plain else f"\\x{byte:02x}"
