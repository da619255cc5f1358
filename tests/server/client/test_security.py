"""The promises of SECURITY.md.

Data never becomes code, certificates are checked, messages contain no passwords, and sizes are checked before
memory is allocated.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import pickle
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import redis_fastbatch
from redis_fastbatch import DecodeError, FastBatch, MsgpackCodec
from redis_fastbatch._core.toolkit.codec import ToolkitCodec
from redis_fastbatch.cli import main
from redis_fastbatch.server import EmbeddedServer
from servers import TlsServer, tls_deployment

PACKAGE = Path(redis_fastbatch.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
CORE = sorted(PACKAGE.rglob("*.p[yx][xd]"))
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "jsonpickle",
    "yaml",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
SECRET = "s3cret-of-the-test"


# -- data is never code --------------------------------------------------------------------------


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_python_file_uses_pickle_or_eval(source: Path) -> None:
    tree = ast.parse(source.read_text())
    assert not FORBIDDEN_MODULES & set(imported(tree))
    assert not FORBIDDEN_CALLS & set(called(tree))


def test_no_cython_file_uses_pickle_or_eval() -> None:
    words = "|".join(FORBIDDEN_MODULES - {"yaml"})
    for source in CORE:
        text = source.read_text()
        assert not re.search(rf"\b(?:import|cimport|from)\s+(?:{words})\b", text), source
        assert not re.search(r"(?<![\w.])(?:eval|exec|__import__)\(", text), source


class Bomb:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("codec", [MsgpackCodec(), ToolkitCodec()], ids=["msgpack", "toolkit"])
def test_pickles_are_not_loaded(codec: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Bomb(), protocol)
        with contextlib.suppress(DecodeError):
            assert not isinstance(codec.loads(data), Bomb)


def test_a_type_named_by_the_data_is_not_looked_up() -> None:
    for name in ("os.system", "builtins.eval", "Bomb", "subprocess", "numpy.load"):
        data = b'{"__type__": "%b", "__data__": "echo hacked"}' % name.encode()
        assert ToolkitCodec().loads(data) == "echo hacked"


# -- certificates --------------------------------------------------------------------------------


def test_a_certificate_of_an_unknown_authority_is_refused(tls_server: TlsServer) -> None:
    with FastBatch.from_url(
        f"rediss://{tls_server.host}:{tls_server.port}/0", retry=Retry(NoBackoff(), 0)
    ) as fast:
        for run in (lambda: fast.batch_set({"k": 1}), lambda: fast.batch_get(["k"])):
            with pytest.raises(redis.ConnectionError, match=r"(?i)certificate verify failed"):
                run()


def test_a_certificate_of_a_known_authority_is_accepted(tls_server: TlsServer) -> None:
    with FastBatch.from_url(tls_server.url) as fast:
        assert fast.batch_set({"k": [1, "two"]}, ex=60).written == 1
        assert fast.batch_get(["k"]) == {"k": [1, "two"]}


@pytest.mark.full
def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    with (
        tls_deployment(tmp_path, names=("other.example",)) as server,
        server.client(ssl_check_hostname=True, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.ConnectionError, match=r"(?i)certificate verify failed.*127\.0\.0\.1"),
    ):
        FastBatch(client).batch_set({"k": 1})


# -- passwords -----------------------------------------------------------------------------------


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """Collect the messages and logs of a test. At the end, check that they do not contain the password."""
    caplog.set_level(logging.DEBUG)
    collected = io.StringIO()
    yield collected
    assert SECRET not in collected.getvalue() + caplog.text


def texts_of(error: BaseException | None) -> str:
    """Return the texts of an error and of its causes, as a log may contain them."""
    text = ""
    while error is not None:
        text += f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    return text


def test_passwords_are_not_in_reprs_and_errors(valkey: EmbeddedServer, messages: io.StringIO) -> None:
    url = f"redis://user:{SECRET}@{valkey.host}:{valkey.port}/0"
    fast = FastBatch.from_url(url, retry=Retry(NoBackoff(), 0))
    messages.write(f"{fast} {fast!r} {fast.client!r}")
    for run in (lambda: fast.batch_set({"k": 1}), lambda: fast.batch_get(["k"]), lambda: fast.batch_delete(["k"])):
        with pytest.raises(redis.RedisError) as caught:
            run()
        messages.write(texts_of(caught.value))


def test_passwords_are_not_in_connection_errors(messages: io.StringIO) -> None:
    fast = FastBatch.from_url(f"redis://:{SECRET}@127.0.0.1:1/0", retry=Retry(NoBackoff(), 1))
    for run in (lambda: fast.batch_set({"k": 1}, workers=2), lambda: fast.batch_get(["k"])):
        with pytest.raises(redis.ConnectionError) as caught:
            run()
        messages.write(texts_of(caught.value))


@pytest.mark.parametrize("password", ["my\u2100S3CRET", "a[S3CRET]b", "S3CRET/b", "S3CRET"])
def test_passwords_in_invalid_urls_are_not_printed(password: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", f"redis://:{password}@127.0.0.1:1/0"]) == 1
    assert "S3CRET" not in capsys.readouterr().err


def test_the_command_line_prints_no_passwords() -> None:
    url = f"redis://:{SECRET}@127.0.0.1:1/0"
    ended = subprocess.run(
        [sys.executable, "-m", "redis_fastbatch", "dump", "--url", url, "--format", "ndjson", "-"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert SECRET not in ended.stdout + ended.stderr


# -- sizes ---------------------------------------------------------------------------------------


def test_values_that_are_too_large_take_no_memory(valkey_client: redis.Redis) -> None:
    valkey_client.set("large", b"x" * 50_000_000)
    fast = FastBatch(valkey_client, "raw", max_value_size=1_000_000)
    fast.batch_get(["none"])
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="max_value_size") as caught:
            fast.batch_get(["large"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.key == "large"
    assert peak < 5_000_000
    assert fast.batch_get(["none"]) == {"none": None}


def test_keys_cannot_become_commands(client: redis.Redis) -> None:
    client.set("victim", "alive")
    evil = [
        "x\r\n*1\r\n$8\r\nFLUSHALL\r\n",
        "$-1\r\n",
        b"\r\n\r\nDEL victim\r\n",
        "*2\r\n$3\r\nDEL\r\n$6\r\nvictim\r\n",
    ]
    fast = FastBatch(client)
    for options in ({}, {"ex": 50}, {"nx": True}, {"atomic": True}):
        client.delete(*evil)
        assert fast.batch_set({key: key for key in evil}, **options).written == len(evil)
        assert fast.batch_get(evil) == {key: key for key in evil}
    assert fast.batch_delete(evil) == len(evil)
    assert client.get("victim") == b"alive"
