"""Only _transports/redispy uses private attributes of redis-py's objects."""

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
"""Names of variables and attributes for redis-py's objects in this package, without a leading underscore."""

UNDOCUMENTED = {
    *("nodes_manager", "single_connection_lock", "slots_cache", "remap_host_port", "command_packer"),
    *("get_provider_manager", "record_operation_duration", "record_error_count"),
}
"""Names without an underscore that redis-py's documentation does not promise."""


def private_names() -> set[str]:
    """Return the names of private attributes that redis-py's source assigns or reads on `self`."""
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


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, expression) for each use of a private attribute of redis-py."""
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
def test_no_other_module_uses_private_attributes() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}:{line}: {expression}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if ALLOWED not in file.parents
        for line, expression in uses(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("name", ["_sock", "_parser", "_reader", "_writer", "_buffer", "_conn"])
def test_private_names_of_redis_py_are_found(name: str) -> None:
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
def test_uses_are_found(code: str) -> None:
    assert list(uses(ast.parse(code)))


def test_every_module_of_redispy_uses_private_attributes() -> None:
    for file in ALLOWED.glob("*.py"):
        assert list(uses(ast.parse(file.read_text(encoding="utf-8")))), file.name
