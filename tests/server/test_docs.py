"""Every Python block of README.md and docs/ runs, against a real server.

The blocks of a page run in order and share a namespace and a temporary directory. `localhost:6379` and `port=6379`
are replaced by the embedded server's address. In a block with the fixture `cluster`, `localhost:7000` and
`port=7000` are replaced by the cluster's. HTML comments before a block, each on a line of its own, change how it
runs:

- `<!-- test: skip REASON -->`: the block does not run. pytest's summary contains the reason.
- `<!-- test: needs MODULE MODULE -->`: the block is skipped if a module is not installed.
- `<!-- test: fixture NAME NAME -->`: the block can use these session fixtures of conftest.py by name.
- `<!-- test: script -->`: the block is a program and runs in a new process.
- `<!-- test: raises ERROR -->`: the block raises this exception.
- `<!-- test: run -->`, before a block of bash: the block runs too, with REDIS_URL set to the server.
- `<!-- test: output -->`, before a block of any other language: the output of the block above.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from redis_fastbatch.server import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if path.exists())

MARKERS = ("skip", "needs", "fixture", "script", "raises", "run", "output")
PYTHON = ("python", "py", "python3")
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+) *(?P<language>[\w-]*)")
MARKER = re.compile(r"^ *<!-- test: *(?P<name>\w+) *(?P<words>.*?) *-->$")


@dataclass
class Block:
    """A fenced block of a page.

    Attributes:
        line: the number of its first line of text, from 1.
        markers: the comments before it, by name.
        expected: its output, or None if the page does not contain it.
    """

    page: Path
    line: int
    language: str
    text: str
    markers: dict[str, str]
    expected: str | None = field(default=None)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that run, in order."""
    found: list[Block] = []
    for block in _fenced(page):
        if block.language in PYTHON or (block.language == "bash" and "run" in block.markers):
            found.append(block)
        elif "output" in block.markers:
            assert found, f"{block}: an output needs a block above it that runs"
            found[-1].expected = block.text
        else:
            assert not block.markers, f"{block}: {set(block.markers)} is not for this language"
            assert block.language != "pycon", f"{block}: sessions with >>> do not run: write a program"
    return found


def _fenced(page: Path) -> Iterator[Block]:
    markers: dict[str, str] = {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if marker := MARKER.match(line):
            assert marker["name"] in MARKERS, f"{page}:{number}: {marker['name']!r} is not one of {MARKERS}"
            markers[marker["name"]] = marker["words"]
        elif fence := FENCE.match(line):
            indent, closing = len(fence["indent"]), fence["fence"]
            text = []
            for _, inner in lines:
                if inner.strip() == closing:
                    break
                text.append(inner[indent:] if inner.strip() else "")
            yield Block(page, number + 1, fence["language"], "\n".join(text) + "\n", markers)
            markers = {}
        elif line.strip():
            assert not markers, f"{page}:{number}: a marker must be directly before a block"


class Page:
    """Runs the blocks of a page, each once and in order."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.directory = directory
        self._blocks = blocks_of(path)
        self._next = 0
        self._module = types.ModuleType(f"docs_{path.stem.replace('-', '_')}")
        sys.modules[self._module.__name__] = self._module

    def run_up_to(self, line: int, server: EmbeddedServer, request: pytest.FixtureRequest) -> str:
        """Run all blocks up to a line that have not run yet. Return the output of the last one."""
        printed = ""
        while self._next < len(self._blocks) and self._blocks[self._next].line <= line:
            block = self._blocks[self._next]
            self._next += 1
            if "skip" in block.markers or missing_modules(block):
                continue
            printed = self._run(block, server, request)
        return printed

    def _run(self, block: Block, server: EmbeddedServer, request: pytest.FixtureRequest) -> str:
        fixtures = {name: request.getfixturevalue(name) for name in block.markers.get("fixture", "").split()}
        text = _with_port(block.text, 6379, server.port)
        if "cluster" in fixtures:
            text = _with_port(text, 7000, fixtures["cluster"].masters[0].port)
        if "script" in block.markers:
            return _run_script(block, text, self.directory)
        if "run" in block.markers:
            return _run_bash(block, text, self.directory, server)
        self._module.__dict__.update(fixtures)
        # Empty lines make the line numbers in tracebacks those of the page.
        code = compile("\n" * (block.line - 1) + text, str(block.page), "exec")
        capture = request.getfixturevalue("capsys")
        capture.readouterr()
        expected = _exception(block.markers.get("raises"), self._module)
        if expected is None:
            exec(code, self._module.__dict__)
        else:
            with pytest.raises(expected):
                exec(code, self._module.__dict__)
        return str(capture.readouterr().out)


def _with_port(text: str, written: int, real: int) -> str:
    return text.replace(f"localhost:{written}", f"127.0.0.1:{real}").replace(f"port={written}", f"port={real}")


def _run_script(block: Block, text: str, directory: Path) -> str:
    script = directory / f"line_{block.line}.py"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=directory, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{block}: {done.stderr}"
    return done.stdout


def _run_bash(block: Block, text: str, directory: Path, server: EmbeddedServer) -> str:
    # The installed console script may be missing, or belong to another environment.
    command = 'redis-fastbatch() { "$PYTHON" -m redis_fastbatch "$@"; }\n'
    variables = {"PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path), "REDIS_URL": server.url}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command + text],
        cwd=directory,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    return done.stdout


def _exception(name: str | None, module: types.ModuleType) -> type[BaseException] | None:
    if not name:
        return None
    found = getattr(module, name, None) or getattr(builtins, name)
    assert isinstance(found, type)
    assert issubclass(found, BaseException)
    return found


def missing_modules(block: Block) -> list[str]:
    """Return the modules that a block needs and that are not installed."""
    return [name for name in block.markers.get("needs", "").split() if importlib.util.find_spec(name) is None]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.fixture(scope="session")
def page_of(
    tmp_path_factory: pytest.TempPathFactory, valkey: EmbeddedServer
) -> functools._lru_cache_wrapper[Page]:
    """Return a function that makes the Page of a path, and empties the server for it."""

    @functools.cache
    def make(path: Path) -> Page:
        with valkey.client() as client:
            client.flushall()
        return Page(path, tmp_path_factory.mktemp(path.stem))

    return make


def with_group(block: Block) -> Any:
    """Return a block as a parameter. One worker runs all blocks of a page, because they share a namespace."""
    needs_cluster = any("cluster" in one.markers.get("fixture", "") for one in blocks_of(block.page))
    group = "cluster" if needs_cluster else block.page.stem
    return pytest.param(block, id=str(block), marks=pytest.mark.xdist_group(group))


@pytest.mark.parametrize("block", [with_group(block) for block in BLOCKS])
def test_a_block_runs(
    block: Block,
    page_of: functools._lru_cache_wrapper[Page],
    valkey: EmbeddedServer,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "skip" in block.markers:
        reason = block.markers["skip"]
        assert reason, f"{block}: skip needs a reason"
        pytest.skip(reason)
    if missing := missing_modules(block):
        pytest.skip(f"{', '.join(missing)} not installed")
    page = page_of(block.page)
    monkeypatch.chdir(page.directory)

    printed = page.run_up_to(block.line, valkey, request)

    if block.expected is not None:
        assert printed == block.expected


def test_there_are_blocks() -> None:
    if not PAGES:
        pytest.skip("README.md and docs/ are not here")
    assert BLOCKS


def test_links_between_pages_have_targets() -> None:
    dead = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert not dead
