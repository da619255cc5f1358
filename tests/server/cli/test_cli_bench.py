"""`redis-fastbatch bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from redis_fastbatch.cli import main
from redis_fastbatch.cli.bench import Bench
from redis_fastbatch.server import EmbeddedServer


def run(server: EmbeddedServer, *arguments: object) -> int:
    url = f"redis://{server.host}:{server.port}"
    return main(["bench", "--rows", "500", "--rounds", "1", "--url", url, *map(str, arguments)])


def test_the_table_has_all_contenders(valkey: EmbeddedServer, valkey_client: redis.Redis, capsys: Any) -> None:
    valkey_client.set("mine", "untouched")
    assert run(valkey) == 0
    messages = capsys.readouterr().out
    assert messages.startswith("Valkey ")
    for words in (
        "batch_set ",
        "batch_get ",
        "redis-py, a pipeline of SETs + msgpack",
        "redis-py, MGET + msgpack",
    ):
        assert words in messages
    assert valkey_client.keys() == [b"mine"]


@pytest.mark.full
def test_the_url_may_set_decode_responses(valkey: EmbeddedServer, capsys: Any) -> None:
    url = f"redis://{valkey.host}:{valkey.port}?decode_responses=true"
    assert main(["bench", "--rows", "20", "--rounds", "1", "--url", url]) == 0, capsys.readouterr().err


@pytest.mark.full
def test_the_chart_is_drawn(valkey: EmbeddedServer, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run(valkey, "--chart", tmp_path / "bench.png") == 0
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("chart", ["no/such/folder/a.png", "a.xyz", "folder.png"])
def test_an_invalid_chart_file_is_an_error_before_the_measurement(
    valkey: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, chart: str
) -> None:
    """The error comes before the measurement."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert run(valkey, "--chart", chart) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"redis-fastbatch: --chart {chart}: ")
    assert captured.err.count("\n") == 1


def test_all_contenders_write_and_read_the_same(valkey_client: redis.Redis) -> None:
    from redis_fastbatch import FastBatch
    from redis_fastbatch.cli.bench import Bench

    bench = Bench(FastBatch(valkey_client), 300)
    expected = dict(zip(bench.keys, bench.rows, strict=True))
    for way in bench.ways():
        if way.group == "write":
            valkey_client.flushdb()
            way.run()
            assert bench.batch.batch_get(bench.keys) == expected
            assert valkey_client.ttl(bench.keys[0]) > 0
    for way in bench.ways():
        if way.group == "read":
            found: Any = way.run()
            assert (
                found if isinstance(found, dict) else dict(zip(bench.keys, found.to_pylist(), strict=True))
            ) == expected


def test_a_closed_port_is_an_error(capsys: Any) -> None:
    assert main(["bench", "--url", "redis://127.0.0.1:1"]) == 1
    assert "no connection" in capsys.readouterr().err


def test_ctrl_c_deletes_the_keys(
    valkey: EmbeddedServer, valkey_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """An unread reply of redis-py must not be read as the reply to the deletion of the keys."""

    def interrupted(self: Bench) -> None:
        connection = self.client.connection_pool.get_connection()
        connection.send_command("BLPOP", "nothing", "0.2")
        self.client.connection_pool.release(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "read_by_mget", interrupted)
    assert run(valkey) == 130
    assert "interrupted" in capsys.readouterr().err
    assert valkey_client.keys() == []
