"""Ctrl-C at any moment, and an interpreter that exits while batches run."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import redis

from redis_fastbatch import FastBatch
from redis_fastbatch.server import EmbeddedServer
from servers import wait_until
from tiers import by_tier

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals need POSIX")
SCRIPT = Path(__file__).parents[2] / "support" / "interrupted.py"


def python(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """Wait for a process, and return its output. Kill it if it does not end in time."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # SIGABRT lets faulthandler show where its threads are.
        process.send_signal(signal.SIGABRT)
        _, err = process.communicate()
        pytest.fail(f"the process did not end within {seconds} s:\n{err[-4000:]}")


@pytest.mark.parametrize("kind", ["single", "cluster", pytest.param("commands", marks=pytest.mark.full)])
def test_interrupts_at_random_moments_leave_a_right_report(kind: str, request: pytest.FixtureRequest) -> None:
    servers = request.getfixturevalue("cluster" if kind == "cluster" else "valkey")
    port = servers.masters[0].port if kind == "cluster" else servers.port
    count = by_tier(200, 500)
    process = python(str(SCRIPT), str(port), str(count), kind)
    out, err = finish(process, 120)
    assert process.returncode == 0, err[-4000:]
    counts = ast.literal_eval(out)
    interrupted = counts.pop("interrupted")
    assert interrupted > count * 0.4
    # An interrupt may come while redis-py takes a connection from its pool: 1 to 2 % do in measurements.
    assert counts.pop("connections not returned", 0) <= interrupted * 0.05
    del counts["done"]
    assert not any(counts.values()), counts


ENDLESS = """
    import sys, threading
    import redis
    from redis_fastbatch import BatchReport, FastBatch

    fast = FastBatch(redis.Redis(port=int(sys.argv[1])))
    not_printed = [True]

    def source():
        number = 0
        while True:
            yield f"endless:{number % 5000}", {"number": number, "list": [number]}
            number += 1
            if number == 20_000 and not_printed:
                not_printed.pop()
                print("running", flush=True)

    def write():
        fast.batch_set(source(), **OPTIONS)

    def read():
        while True:
            fast.batch_get([f"endless:{i}" for i in range(3000)])
"""


def run_endless(valkey: EmbeddedServer, ending: str, options: str = "{}") -> subprocess.Popen[str]:
    code = textwrap.dedent(ENDLESS).replace("**OPTIONS", f"**{options}") + textwrap.dedent(ending)
    process = python("-c", code, str(valkey.port))
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n", process.communicate()
    return process


@pytest.mark.parametrize("options", ["{}", "{'ex': 100}", "{'nx': True}", "{'workers': 2}"])
def test_ctrl_c_ends_an_endless_batch_with_a_right_report(valkey: EmbeddedServer, options: str) -> None:
    ending = """
        try:
            write()
        except KeyboardInterrupt as error:
            report = error.report
            assert report.written + report.skipped + report.failed == report.total > 0
            assert fast.batch_get(["endless:7"])["endless:7"]["number"] % 5000 == 7
            print("written", report.written > 5000, report.confirmed_prefix <= report.total)
    """
    process = run_endless(valkey, ending, options)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = finish(process, 30)
    assert process.returncode == 0, err[-4000:]
    assert out in ("written True True\n", "written False True\n")


@pytest.mark.full
@pytest.mark.parametrize("ending", ["sys.exit(0)", "raise SystemExit(0)", "import os; os._exit(0)"])
def test_an_interpreter_may_exit_while_batches_run(valkey: EmbeddedServer, ending: str) -> None:
    body = f"""
        import time
        for work in (write, write, read, read):
            threading.Thread(target=work, daemon=True).start()
        while not_printed:
            time.sleep(0.01)
        time.sleep(0.3)
        {ending}
    """
    process = run_endless(valkey, body)
    _, err = finish(process, 30)
    assert process.returncode == 0, err[-4000:]
    assert "Fatal" not in err


def test_a_killed_process_leaves_only_whole_values(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    process = run_endless(valkey, "write()")
    process.kill()
    finish(process, 30)
    fast = FastBatch(valkey_client)
    wait_until(lambda: valkey_client.dbsize() > 0, "its last commands are executed")
    found = fast.batch_get(fast.scan("endless:*"))
    assert found
    assert all(value["number"] % 5000 == int(key.split(b":")[1]) for key, value in found.items())


def test_a_signal_handler_may_use_the_same_client(valkey_client: redis.Redis) -> None:
    fast = FastBatch(valkey_client)
    items = {f"k{i}": [i] for i in range(2000)}
    written: list[int] = []

    def handler(*_: object) -> None:
        written.append(fast.batch_set({"from the handler": 1}).written)
        # Only now, because nested handlers could use up the stack on a busy machine.
        signal.setitimer(signal.ITIMER_REAL, 0.003)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        for _ in range(30):
            assert fast.batch_set(items).written == 2000
            assert fast.batch_get(items) == items
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert written
    assert set(written) == {1}


def test_an_interrupt_between_a_short_command_and_its_flight_closes_the_connection(
    valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader may hold a part of the reply only."""
    fast = FastBatch(valkey_client)
    fast.batch_set({"a": 1})
    fast.batch_get(["a"])
    [connection] = valkey_client.connection_pool._available_connections

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fast, "_takes_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fast.batch_get(["a"])
    assert connection._sock is None
    assert fast.batch_get(["a"]) == {"a": 1}
