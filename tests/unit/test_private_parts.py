"""Only _transports/redispy touches what is private in redis-py's objects."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

PACKAGE = Path(__file__).parents[2] / "redis_fastbatch"
ALLOWED = PACKAGE / "_transports" / "redispy"
REDISPY = Path(redis.__file__).parent

HOLDERS = {"client", "cluster", "connection", "manager", "node", "parser", "pool", "retry", "writer"}
"""How variables and attributes that hold redis-py's objects are called here, after any underscore."""

UNDOCUMENTED = {"nodes_manager", "single_connection_lock", "slots_cache", "remap_host_port", "command_packer"}
"""Names without an underscore that redis-py's documentation does not promise."""


def private_names() -> set[str]:
    """Return the private attributes of redis-py's objects, as its own source names them."""
    found: set[str] = set()
    for name in ("client", "connection", "cluster", "retry", "sentinel"):
        for file in (REDISPY / f"{name}.py", REDISPY / "asyncio" / f"{name}.py"):
            found.update(re.findall(r"\bself\.(_[a-z]\w*)", file.read_text(encoding="utf-8")))
    for file in (REDISPY / "_parsers").glob("*.py"):
        found.update(re.findall(r"\bself\.(_[a-z]\w*)", file.read_text(encoding="utf-8")))
    return found


def last_name(node: ast.expr) -> str:
    """Return the last name of an expression such as `self._client`; an empty string for any other."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def touches(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, what) wherever something private in redis-py is touched."""
    private = private_names()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            holder, name = last_name(node.value), node.attr
        elif isinstance(node, ast.Call) and last_name(node.func) in ("getattr", "hasattr", "setattr"):
            holder = last_name(node.args[0])
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
        else:
            continue
        is_private = name.startswith("_") and not name.startswith("__")
        if holder.startswith("redispy"):
            continue
        if name in UNDOCUMENTED or (is_private and holder.lstrip("_") in HOLDERS and name in private):
            yield node.lineno, f"{holder}.{name}"


@pytest.mark.full
def test_nothing_else_touches_private_parts() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}:{line}: {what}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if ALLOWED not in file.parents
        for line, what in touches(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("name", ["_sock", "_parser", "_reader", "_writer", "_buffer", "_conn"])
def test_the_private_parts_are_known(name: str) -> None:
    assert name in private_names()


@pytest.mark.parametrize(
    "code",
    [
        "self._connection._sock.close()",
        "getattr(connection, '_parser', None)",
        "client.nodes_manager.initialize()",
        "pool._available_connections",
    ],
)
def test_touching_is_seen(code: str) -> None:
    assert list(touches(ast.parse(code)))


def test_redispy_is_where_they_are_touched() -> None:
    for file in ALLOWED.glob("*.py"):
        assert list(touches(ast.parse(file.read_text(encoding="utf-8")))), file.name
