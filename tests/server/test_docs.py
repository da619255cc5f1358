"""Every Python block of README.md and docs/ runs, against a real server.

The blocks of a page share a namespace and a scratch directory, from the first to the last. Their addresses
`localhost:6379` and `port=6379` become the embedded server's; `localhost:7000` and `port=7000` the cluster's,
where a block asks for the fixture `cluster`. HTML comments before a block say what is special about it, each
on a line of its own:

- `<!-- test: skip REASON -->`: it is not run, and the reason is in pytest's summary.
- `<!-- test: needs MODULE MODULE -->`: it is skipped where a module is not installed.
- `<!-- test: fixture NAME NAME -->`: session-wide fixtures of conftest.py, which it finds under these names.
- `<!-- test: script -->`: it is a program, run by itself in a process of its own.
- `<!-- test: raises ERROR -->`: it ends in that exception.
- `<!-- test: run -->`, before a block of bash: it is run too, with REDIS_URL set to the server.
- `<!-- test: output -->`, before a block of any other language: what the block above it prints.
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
        line: of its first line of text, from 1.
        markers: what the comments before it say.
        expected: what it prints, None where the page does not say.
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
    """The blocks of a page that are run, in order."""
    found: list[Block] = []
    for block in _fenced(page):
        if block.language in PYTHON or (block.language == "bash" and "run" in block.markers):
            found.append(block)
        elif "output" in block.markers:
            assert found, f"{block}: there is no block above that is run"
            found[-1].expected = block.text
        else:
            assert not block.markers, f"{block}: a block of another language takes no {set(block.markers)}"
            assert block.language != "pycon", f"{block}: sessions with >>> are not run, write a program"
    return found


def _fenced(page: Path) -> Iterator[Block]:
    markers: dict[str, str] = {}
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        if marker := MARKER.match(line):
            assert marker["name"] in MARKERS, f"{page}:{number}: no marker {marker['name']!r}"
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
            assert not markers, f"{page}:{number}: a marker stands right before a block"


class Page:
    """The blocks of a page as they run: once each, in order."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.directory = directory
        self._blocks = blocks_of(path)
        self._next = 0
        self._module = types.ModuleType(f"docs_{path.stem.replace('-', '_')}")
        sys.modules[self._module.__name__] = self._module

    def run_up_to(self, line: int, server: EmbeddedServer, request: pytest.FixtureRequest) -> str:
        """Run the blocks that have not been run up to the one of a line; return what that one printed."""
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
        # Line numbers in tracebacks are the page's.
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
    # The console script may not be installed, or be another environment's.
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
    """The modules that a block needs and that are not installed."""
    return [name for name in block.markers.get("needs", "").split() if importlib.util.find_spec(name) is None]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.fixture(scope="session")
def page_of(
    tmp_path_factory: pytest.TempPathFactory, valkey: EmbeddedServer
) -> functools._lru_cache_wrapper[Page]:
    """Makes the Page of a path, with an empty server, when its first block is run."""

    @functools.cache
    def make(path: Path) -> Page:
        with valkey.client() as client:
            client.flushall()
        return Page(path, tmp_path_factory.mktemp(path.stem))

    return make


def with_group(block: Block) -> Any:
    """Return a block with the mark that has one worker run all blocks of a page: they share a namespace."""
    needs_cluster = any("cluster" in one.markers.get("fixture", "") for one in blocks_of(block.page))
    group = "cluster" if needs_cluster else block.page.stem
    return pytest.param(block, id=str(block), marks=pytest.mark.xdist_group(group))


@pytest.mark.parametrize("block", [with_group(block) for block in BLOCKS])
def test_block(
    block: Block,
    page_of: functools._lru_cache_wrapper[Page],
    valkey: EmbeddedServer,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "skip" in block.markers:
        reason = block.markers["skip"]
        assert reason, f"{block}: skip wants a reason"
        pytest.skip(reason)
    if missing := missing_modules(block):
        pytest.skip(f"{', '.join(missing)} not installed")
    page = page_of(block.page)
    monkeypatch.chdir(page.directory)

    printed = page.run_up_to(block.line, valkey, request)

    if block.expected is not None:
        assert printed == block.expected


def test_there_are_pages_with_blocks() -> None:
    if not PAGES:
        pytest.skip("README.md and docs/ are not here")
    assert BLOCKS


def test_links_between_pages_lead_somewhere() -> None:
    dead = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert not dead
