"""Imports in the package point downwards, from layer to layer.

A module imports from layers below its own, and from its own layer. Modules never import each other in a circle.
The order is that of the design, with these details:

- errors and report are at the bottom: every layer raises errors, and the engine fills in the report;
- server only needs its parts in _server, codecs only the core;
- _arguments is above the engine, whose limits it checks, and below the transports: threads.py checks `workers`;
- _tables and _cluster do not import each other, nor do toolkit and cli.

Imports within functions count, and so do imports for type checkers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "redis_fastbatch"
NAME = PACKAGE.name

pytestmark = pytest.mark.skipif(not PACKAGE.is_dir(), reason="a wheel is tested without the package's sources")

LAYERS = (
    {"_common_types", "_messages", "_redirections", "_typing", "_version", "templates"},
    {"report"},
    {"errors"},
    {"_core", "_server"},
    {"codecs", "_engine", "server"},
    {"_arguments"},
    {"_transports"},
    {"_cluster", "_tables"},
    {"_async_batches", "_base_client", "_batches"},
    {"_hash_client", "_one_key"},
    {
        *("_async_command_methods", "_async_hash_methods", "_async_table_methods"),
        *("_command_methods", "_hash_methods", "_table_methods"),
    },
    {"client", "async_client"},
    {"toolkit", "cli"},
    {"__init__", "__main__"},
)

CORE_LAYERS = (
    {"runtime"},
    {"codec"},
    {"frames", "type_libraries", "typed"},
    {"compressed", "json", "raw", "msgpack"},
    {"resp", "toolkit"},
    {"arrow"},
)
"""The layers within _core."""

INPUT_AND_OUTPUT = {"asyncio", "select", "selectors", "socket", "ssl"}

CYTHON_IMPORT = re.compile(
    r"^[ ]*(?:from[ ]+([\w.]+)[ ]+c?import[ ]+(\([^)]*\)|[^#\n]*)|c?import[ ]+([\w.]+))", re.MULTILINE
)


def module_of(file: Path) -> str:
    """Return a file's module, such as "_core.resp.replies"; "__init__" for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = sorted(file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".pyx", ".pxd"))
MODULES = {module_of(file) for file in FILES}


class Imports(ast.NodeVisitor):
    """Collects (module, name) for every import at run time; name is None for `import module`."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str | None]] = []

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, None) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute here"
        self.found += [(node.module or "", alias.name) for alias in node.names]


def imports_of(file: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name) for what a file imports or cimports."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        visitor = Imports()
        visitor.visit(ast.parse(text))
        yield from visitor.found
        return
    for module, names, plain in CYTHON_IMPORT.findall(text):
        if plain:
            yield plain, None
        for name in re.findall(r"[\w.*]+", names.partition(" as ")[0]):
            yield module, name


def own_imports(file: Path) -> Iterator[str]:
    """Yield the package's modules that a file imports."""
    for module, name in imports_of(file):
        if module.partition(".")[0] != NAME:
            continue
        inner = module.partition(".")[2]
        full = f"{inner}.{name}".lstrip(".")
        target = full if full in MODULES else inner or "__init__"
        assert target in MODULES, f"{file}: {module}, {name}"
        if target != module_of(file):
            yield target


def rank_of(module: str) -> tuple[int, int]:
    """Return the number of a module's layer, and of its layer within _core."""
    first, _, rest = module.partition(".")
    layer = next(number for number, names in enumerate(LAYERS) if first in names)
    if first != "_core" or not rest:
        return layer, -1
    subpackage = rest.partition(".")[0]
    return layer, next(number for number, names in enumerate(CORE_LAYERS) if subpackage in names)


def group_of(module: str) -> str:
    """Return the package that a module belongs to; within _core, the subpackage."""
    return ".".join(module.split(".")[: 2 if module.startswith("_core.") else 1])


def test_every_module_belongs_to_a_layer() -> None:
    assert len(FILES) > 80
    for module in MODULES:
        rank_of(module)


def test_imports_point_downwards() -> None:
    upwards = [
        f"{module_of(file)} imports {target}"
        for file in FILES
        for target in own_imports(file)
        if rank_of(target) > rank_of(module_of(file))
    ]
    assert upwards == []


def test_packages_of_one_layer_do_not_import_each_other() -> None:
    sideways = [
        f"{module} imports {target}"
        for file in FILES
        for module in [module_of(file)]
        for target in own_imports(file)
        if rank_of(target) == rank_of(module) and group_of(target) != group_of(module)
    ]
    assert sideways == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for file in FILES:
        graph[module_of(file)].update(own_imports(file))
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for target in sorted(graph[module]):
                walk(target, (*path, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())


def foreign_imports(package: str) -> dict[str, set[str]]:
    """Return, for each module of a package, what it imports from outside redis_fastbatch."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        if module_of(file).partition(".")[0] == package:
            names = {module for module, _ in imports_of(file) if module.partition(".")[0] != NAME}
            found.setdefault(module_of(file), set()).update(names)
    assert any(found.values())
    return found


def test_the_engine_imports_no_client_and_no_io() -> None:
    for module, names in foreign_imports("_engine").items():
        tops = {name.partition(".")[0] for name in names - {"redis.exceptions"}}
        assert not tops & {*INPUT_AND_OUTPUT, "redis", "hiredis"}, module


def test_the_core_imports_no_client_and_no_io() -> None:
    for module, names in foreign_imports("_core").items():
        assert not {name.partition(".")[0] for name in names} & {*INPUT_AND_OUTPUT, "redis", "hiredis"}, module


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from a.b cimport (\n    c,\n    d,\n)\n", [("a.b", "c"), ("a.b", "d")]),
        ("from a.b cimport c as d  # not e\n", [("a.b", "c")]),
        ("    cimport a.b\n", [("a.b", None)]),
        ("import a\n", [("a", None)]),
    ],
)
def test_imports_in_cython_files_are_found(tmp_path: Path, text: str, found: list[tuple[str, str | None]]) -> None:
    file = tmp_path / "module.pyx"
    file.write_text(text)
    assert list(imports_of(file)) == found
