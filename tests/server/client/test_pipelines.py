"""FastBatch.pipeline(): redis-py's pipeline, with the same results, errors and state."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.client
import redis.connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from checks import in_use
from pipelines import EVERYTHING, Call, call, calls, described, outcome, queue
from redis_fastbatch import FastBatch
from redis_fastbatch._transports.channels import SocketChannel
from redis_fastbatch._transports.redispy import pipeline as fast
from redis_fastbatch.server import EmbeddedServer
from servers import Cluster, SentinelGroup, TlsServer
from tiers import examples

Settings = dict[str, Any]

PLAIN: Settings = {}
WAYS: list[Any] = [
    pytest.param({}, id="default"),
    pytest.param({"protocol": 2}, id="RESP2"),
    pytest.param({"protocol": 3}, id="RESP3"),
    pytest.param({"protocol": 2, "decode_responses": True}, id="RESP2 decoded"),
    pytest.param({"protocol": 3, "decode_responses": True}, id="RESP3 decoded"),
    pytest.param({"unix": True}, id="unix socket"),
    pytest.param({"encoding": "latin-1"}, id="latin-1", marks=pytest.mark.full),
    pytest.param(
        {"encoding": "latin-1", "decode_responses": True, "protocol": 2},
        id="latin-1 decoded",
        marks=pytest.mark.full,
    ),
    pytest.param({"health_check_interval": 1}, id="health checks", marks=pytest.mark.full),
    pytest.param({"single_connection_client": True}, id="single connection", marks=pytest.mark.full),
]


@pytest.fixture
def connect(valkey: EmbeddedServer) -> Iterator[Callable[..., redis.Redis]]:
    """Makes clients of the embedded Valkey, emptied."""
    made: list[redis.Redis] = []

    def connect(*, unix: bool = False, **options: Any) -> redis.Redis:
        if unix:
            options["unix_socket_path"] = valkey.unix_socket_path
        made.append(valkey.client(**options))
        return made[-1]

    with valkey.client() as admin:
        admin.flushall()
    yield connect
    for each in made:
        each.close()


Connect = Callable[..., redis.Redis]


def both(client: redis.Redis, run: Callable[[Callable[..., Any]], Any]) -> tuple[Any, Any]:
    """Return what `run` returns or raises with our pipeline() and with redis-py's, each on an emptied server."""
    found = []
    for make in (FastBatch(client).pipeline, client.pipeline):
        client.flushall()
        found.append(outcome(lambda make=make: run(make)))
    return found[0], found[1]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each pipeline has sent through the core."""
    counts: list[int] = []
    exchange = fast.exchange

    def counted(connection: Any, sock: Any, flight: Any) -> int:
        counts.append(flight._wanted)
        return exchange(connection, sock, flight)

    monkeypatch.setattr(fast, "exchange", counted)
    return counts


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("raise_on_error", [False, True])
@pytest.mark.parametrize("options", WAYS)
def test_equal_results(
    connect: Connect, options: Settings, transaction: bool, raise_on_error: bool, sent: list[int]
) -> None:
    client = connect(**options)
    held = in_use(client)
    # redis-py decodes the reply to EXEC as a whole, and a dump is not text.
    some = [each for each in EVERYTHING if not (transaction and each[0] == "dump")]

    def run(make: Any) -> Any:
        with make(transaction=transaction) as pipe:
            queue(pipe, some)
            return len(pipe), pipe.execute(raise_on_error=raise_on_error), len(pipe)

    ours, theirs = both(client, run)
    assert ours == theirs
    assert sent == [1 if transaction else len(some)]
    assert in_use(client) == held


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("options", WAYS[1:3])
@given(some=st.lists(calls, max_size=12), raise_on_error=st.booleans(), decode=st.booleans())
@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_commands(
    connect: Connect, options: Settings, transaction: bool, some: list[Call], raise_on_error: bool, decode: bool
) -> None:
    with connect(decode_responses=decode, encoding_errors="replace", **options) as client:

        def run(make: Any) -> Any:
            pipe = make(transaction)
            queue(pipe, some)
            stack = described(pipe.command_stack)
            return stack, outcome(lambda: pipe.execute(raise_on_error)), len(pipe), pipe.watching

        ours, theirs = both(client, run)
        assert ours == theirs
        assert client.echo("in step") in ("in step", b"in step")


def test_it_is_a_pipeline(connect: Connect) -> None:
    client = connect()
    pipe = FastBatch(client).pipeline()
    assert isinstance(pipe, redis.client.Pipeline)
    assert pipe
    assert len(pipe) == 0
    assert pipe.transaction
    assert pipe.set("a", 1) is pipe
    assert len(pipe.get("a").incr("b")) == 3
    assert pipe.command_stack == client.pipeline().set("a", 1).get("a").incr("b").command_stack
    pipe.reset()
    assert len(pipe) == 0
    assert pipe.execute() == []
    assert not FastBatch(client).pipeline(False, "hint").transaction


def test_methods_queue_what_redis_py_queues(connect: Connect) -> None:
    client = connect()
    some = [
        *EVERYTHING,
        call("set", "k", "v", 10),
        call("set", "k", "v", None, 10),
        call("set", name="k", value="v", px=5),
        call("get", name="k"),
        call("incr", "k", amount=3),
        call("incr", name="k"),
        call("expire", "k", 5, True),
        call("expire", name="k", time=5, xx=True),
        call("hset", "k", "f", None),
        call("hset", name="k", key="f", value=1, mapping={"g": 2}),
        call("hset", "k", mapping={}, items=["a", 1]),
        call("zadd", "k", {"a": 1}, True),
        call("zadd", name="k", mapping={"a": 1, "b": 2}, gt=True),
        call("sadd", "k"),
        call("hgetall", name="k"),
    ]
    ours, theirs = FastBatch(client).pipeline(), client.pipeline()
    for each in some:
        queue(ours, [each])
        queue(theirs, [each])
    assert ours.command_stack == theirs.command_stack


@pytest.mark.parametrize(
    "wrong",
    [
        call("hset", "k"),
        call("hset", "k", mapping={}),
        call("zadd", "k", {}),
        call("set", "k", "v", ex=1.5),
        call("set", "k", "v", ex=1, px=1),
        call("expire", "k", "v", xx=1, bad=2),
        call("get"),
    ],
    ids=lambda wrong: f"{wrong[0]} {wrong[1]} {wrong[2]}",
)
def test_wrong_arguments(connect: Connect, wrong: Call) -> None:
    def run(make: Any) -> None:
        queue(make(), [wrong])

    ours, theirs = both(connect(), run)
    assert ours[0] == theirs[0] == "raised"
    assert ours[1][0] == theirs[1][0]


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("value", [None, True, object, {"a": 1}, "\ud800"], ids=repr)
def test_what_cannot_be_packed_sends_nothing(connect: Connect, value: Any, transaction: bool) -> None:
    client = connect()

    def run(make: Any) -> Any:
        with make(transaction) as pipe:
            queue(pipe, [call("set", "a", 1), call("set", "b", value)])
            try:
                pipe.execute()
            except Exception as error:
                return error, len(pipe), client.exists("a")

    ours, theirs = both(client, run)
    assert ours == theirs
    assert ours[1][2] == (int, "0")


class TestErrors:
    """The texts of redis-py's errors."""

    @pytest.mark.parametrize("transaction", [False, True])
    def test_the_failed_command_is_named(self, connect: Connect, transaction: bool) -> None:
        client = connect(protocol=2)
        client.rpush("list", "a")
        pipe = FastBatch(client).pipeline(transaction).set("a", 1).get("list").set("b", 2)
        named = r"^Command # 2 \(GET list\) of pipeline caused error: WRONGTYPE"
        with pytest.raises(redis.ResponseError, match=named):
            pipe.execute()
        assert client.get("b") == b"2"
        assert len(pipe) == 0

    def test_errors_among_the_results(self, connect: Connect) -> None:
        client = connect()
        client.rpush("list", "a")
        found = FastBatch(client).pipeline().set("a", 1).get("list").set("b", 2).execute(raise_on_error=False)
        assert found[0] is found[2] is True
        assert isinstance(found[1], redis.ResponseError)

    def test_a_refused_transaction(self, connect: Connect) -> None:
        client = connect()
        pipe = FastBatch(client).pipeline().set("a", 1).execute_command("NOSUCH").set("b", 2)
        named = r"^Command # 2 \(NOSUCH\) of pipeline caused error: unknown command"
        with pytest.raises(redis.ResponseError, match=named):
            pipe.execute()
        assert not client.exists("a", "b")
        assert FastBatch(client).pipeline().set("a", 1).execute() == [True]

    def test_a_long_command_is_shortened_as_redis_py_does(self, connect: Connect) -> None:
        def run(make: Any) -> None:
            make().set("a", "x" * 500, keepttl=True).lpush("a", "y" * 500).execute()

        ours, theirs = both(connect(), run)
        assert ours == theirs
        assert ours[0] == "raised"

    def test_a_callback_that_fails(self, connect: Connect) -> None:
        def fail(reply: object, **options: object) -> None:
            raise ValueError(f"not {reply!r}")

        def refuse(reply: object, **options: object) -> None:
            raise redis.ResponseError("no")

        for callback in (fail, refuse):
            for transaction in (False, True):
                client = connect()
                client.set_response_callback("GET", callback)

                def run(make: Any, transaction: bool = transaction) -> Any:
                    return make(transaction).set("a", 1).get("a").get("b").execute()

                ours, theirs = both(client, run)
                assert ours == theirs
                # redis-py leaves the replies after the failed one unread.
                client.connection_pool.disconnect()
                outcome(lambda client=client, run=run: run(FastBatch(client).pipeline))
                assert client.echo("in step") == b"in step"


class TestState:
    """WATCH, MULTI, scripts and reset()."""

    def test_watch(self, connect: Connect) -> None:
        client = connect()
        client.set("a", 1)
        with FastBatch(client).pipeline() as pipe:
            assert pipe.watch("a")
            assert pipe.watching
            assert pipe.get("a") == b"1"
            assert pipe.incr("b") == 1
            assert pipe.hgetall("hash") == {}
            pipe.multi()
            assert pipe.set("a", 3) is pipe
            assert pipe.execute() == [True]
            assert not pipe.watching
        assert client.get("a") == b"3"
        assert in_use(client) == 0

    def test_a_watched_key_that_changes(self, connect: Connect) -> None:
        client = connect()
        with FastBatch(client).pipeline() as pipe:
            pipe.watch("a")
            client.set("a", 2)
            pipe.multi()
            pipe.set("a", 3)
            with pytest.raises(redis.WatchError, match="Watched variable changed"):
                pipe.execute()
            assert not pipe.watching
        assert client.get("a") == b"2"

    def test_unwatch_and_an_empty_transaction(self, connect: Connect) -> None:
        client = connect()
        with FastBatch(client).pipeline() as pipe:
            pipe.watch("a")
            client.set("a", 1)
            assert pipe.unwatch()
            assert pipe.set("b", 2) is pipe
            assert pipe.execute() == [True]
            pipe.watch("a")
            assert pipe.execute() == []
            assert not pipe.watching

    def test_reset_unwatches(self, connect: Connect) -> None:
        client = connect(max_connections=1)
        pipe = FastBatch(client).pipeline()
        pipe.watch("a")
        pipe.reset()
        assert pipe.set("a", 1).execute() == [True]
        assert client.get("a") == b"1"

    def test_commands_about_the_transaction_itself(self, connect: Connect) -> None:
        def run(make: Any) -> Any:
            pipe = make(transaction=False)
            pipe.pipeline_execute_command("WATCH", "a")
            pipe.pipeline_execute_command("UNWATCH")
            queue(pipe, [call("set", "a", 1)])
            return pipe.execute(), pipe.watching

        ours, theirs = both(connect(), run)
        assert ours == theirs

    def test_misuse(self, connect: Connect) -> None:
        pipe = FastBatch(connect()).pipeline()
        pipe.set("a", 1)
        with pytest.raises(redis.RedisError, match="without an initial WATCH"):
            pipe.multi()
        pipe.reset()
        pipe.multi()
        with pytest.raises(redis.RedisError, match="nested"):
            pipe.multi()
        with pytest.raises(redis.RedisError, match="WATCH after a MULTI"):
            pipe.watch("a")

    def test_scripts(self, connect: Connect) -> None:
        client = connect()
        client.script_flush()
        script = client.register_script("return redis.call('GET', KEYS[1]) * ARGV[1]")
        pipe = FastBatch(client).pipeline()
        pipe.set("a", 2)
        script(keys=["a"], args=[3], client=pipe)
        assert pipe.execute() == [True, 6]

    def test_transaction_helper(self, connect: Connect) -> None:
        client = connect()

        class Fast(redis.Redis):
            def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> redis.client.Pipeline:
                return FastBatch(self).pipeline(transaction, shard_hint)

        with Fast(connection_pool=client.connection_pool) as changed:
            client.set("a", 5)
            found = changed.transaction(lambda pipe: pipe.multi() or pipe.incr("a"), "a")
            assert found == [6]

    def test_pipelines_of_many_threads(self, connect: Connect) -> None:
        batch = FastBatch(connect(max_connections=8))
        wrong: list[Any] = []

        def work(number: int) -> None:
            for _ in range(20):
                pipe = batch.pipeline(transaction=number % 2 == 0)
                for i in range(50):
                    pipe.set(f"{number}:{i}", f"{number} {i}")
                    pipe.get(f"{number}:{i}")
                if pipe.execute()[1::2] != [f"{number} {i}".encode() for i in range(50)]:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not wrong


class TestSizes:
    """Pipelines of more bytes than any buffer holds."""

    @pytest.mark.parametrize("transaction", [False, True])
    @pytest.mark.parametrize("options", WAYS[1:6:2])
    def test_many_commands(self, connect: Connect, options: Settings, transaction: bool, sent: list[int]) -> None:
        client = connect(**options)

        def run(make: Any) -> Any:
            pipe = make(transaction)
            for i in range(5000):
                pipe.set(f"key:{i}", f"value {i}" * 10)
                pipe.get(f"key:{i}")
            return pipe.execute()

        ours, theirs = both(client, run)
        assert ours == theirs
        assert sent

    def test_large_values_both_ways(self, connect: Connect) -> None:
        client = connect()
        large = bytes(range(256)) * 40_000
        pipe = FastBatch(client).pipeline(transaction=False)
        for i in range(4):
            pipe.set(f"large:{i}", large).get(f"large:{i}")
        assert pipe.execute() == [True, large] * 4
        pipe.rpush("list", *[large[:1000]] * 5000)
        pipe.lrange("list", 0, -1)
        assert pipe.execute() == [5000, [large[:1000]] * 5000]

    @pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.full)])
    def test_small_socket_buffers(self, connect: Connect, count: int) -> None:
        """Neither side waits for the other to read: replies are read while commands are sent."""

        class Narrow(redis.connection.Connection):
            def _connect(self) -> socket.socket:
                sock = super()._connect()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                return sock

        source = connect()
        pool = redis.ConnectionPool(connection_class=Narrow, **source.connection_pool.connection_kwargs)
        with redis.Redis(connection_pool=pool) as client:
            pipe = FastBatch(client).pipeline(transaction=False)
            for i in range(count):
                pipe.echo(f"{i}" * 100)
            assert pipe.execute() == [f"{i}".encode() * 100 for i in range(count)]
        pool.disconnect()


class TestConnections:
    """Connections that the core does not know are redis-py's to use."""

    def test_a_class_of_the_users(self, connect: Connect, sent: list[int]) -> None:
        class Own(redis.connection.Connection):
            def send_packed_command(self, *arguments: Any, **options: Any) -> None:
                super().send_packed_command(*arguments, **options)

        self.check(connect, redis.ConnectionPool, connection_class=Own)
        assert not sent

    def test_a_parser_of_redis_py(self, connect: Connect, sent: list[int]) -> None:
        from redis._parsers import _RESP3Parser

        self.check(connect, redis.ConnectionPool, parser_class=_RESP3Parser)
        assert not sent

    def test_a_packer_of_the_users(self, connect: Connect, sent: list[int]) -> None:
        class Shouting(redis.connection.HiredisRespSerializer):
            def pack(self, *arguments: Any) -> Any:
                return super().pack(*(each.upper() if isinstance(each, str) else each for each in arguments))

        client = connect()
        pool = redis.ConnectionPool(**{**client.connection_pool.connection_kwargs, "command_packer": Shouting()})
        with redis.Redis(connection_pool=pool) as loud:
            assert FastBatch(loud).pipeline().set("a", "quiet").get("A").execute() == [True, b"QUIET"]
        pool.disconnect()
        assert sent

    def test_a_blocking_pool(self, connect: Connect, sent: list[int]) -> None:
        self.check(connect, redis.BlockingConnectionPool)
        assert sent

    def check(self, connect: Connect, kind: type[redis.ConnectionPool], **options: Any) -> None:
        source = connect()
        pool = kind(**{**source.connection_pool.connection_kwargs, **options})
        with redis.Redis(connection_pool=pool) as client:
            for transaction in (False, True):
                found = FastBatch(client).pipeline(transaction).set("a", 1).get("a").hgetall("none").execute()
                assert found == [True, b"1", {}]
        pool.disconnect()

    def test_a_pipeline_whose_replies_are_parsed_otherwise(self, connect: Connect, sent: list[int]) -> None:
        batch = FastBatch(connect())

        class Own(fast.FastPipeline):
            def parse_response(self, *arguments: Any, **options: Any) -> Any:
                return "own", super().parse_response(*arguments, **options)

        client = batch.client
        pipe = Own(client.connection_pool, client.response_callbacks, False, None)
        assert pipe.set("a", 1).execute() == [("own", True)]
        assert not sent

    def test_push_messages_reach_their_handler(self, connect: Connect) -> None:
        client = connect(protocol=3, max_connections=1)
        connection = client.connection_pool.get_connection()
        seen: list[Any] = []
        if not hasattr(connection._parser, "set_invalidation_push_handler"):
            pytest.skip("this redis-py has no handlers for push messages")
        connection._parser.set_invalidation_push_handler(seen.append)
        client.connection_pool.release(connection)
        client.execute_command("CLIENT", "TRACKING", "ON", "BCAST")
        found = FastBatch(client).pipeline(transaction=False).set("a", 1).get("a").set("a", 2).execute()
        client.ping()
        assert found == [True, b"1", True]
        assert [message[0] for message in seen] == [b"invalidate"] * len(seen)
        assert seen

    def test_a_server_that_closed_the_connection(self, connect: Connect) -> None:
        client = connect(retry=Retry(NoBackoff(), 1))
        connect().client_kill_filter(_type="normal", skipme=True)
        assert FastBatch(client).pipeline().set("a", 1).get("a").execute() == [True, b"1"]

    @pytest.mark.full
    def test_tls(self, tls_server: TlsServer) -> None:
        with tls_server.client() as client:
            pipe = FastBatch(client).pipeline(transaction=False)
            for i in range(3000):
                pipe.set(f"key:{i}", f"value {i}" * 20).get(f"key:{i}")
            assert pipe.execute() == [each for i in range(3000) for each in (True, f"value {i}".encode() * 20)]

    @pytest.mark.full
    def test_sentinel(self, sentinel: SentinelGroup) -> None:
        client = sentinel.connect().master_for(sentinel.name)
        assert FastBatch(client).pipeline().set("a", 1).get("a").execute() == [True, b"1"]

    @pytest.mark.full
    def test_client_side_caching(self, redis82: EmbeddedServer, sent: list[int]) -> None:
        from redis.cache import CacheConfig

        with redis82.client(protocol=3, cache_config=CacheConfig()) as client:
            assert FastBatch(client).pipeline().set("a", 1).get("a").execute() == [True, b"1"]
            assert client.get("a") == b"1"
        assert not sent


def test_interrupted(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C while replies are awaited, the connection is closed."""
    client = connect(max_connections=1)
    pipe = FastBatch(client).pipeline(transaction=False)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SocketChannel, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pipe.set("a", 1).get("a").execute()
    assert client.echo("in step") == b"in step"
    assert in_use(client) == 0


@pytest.mark.parametrize("transaction", [False, True])
def test_the_connection_goes_back(connect: Connect, transaction: bool) -> None:
    """Whether the pipeline ends well or with an error, its one connection is free for the next."""
    client = connect(max_connections=1)
    for _ in range(3):
        with FastBatch(client).pipeline(transaction) as pipe:
            assert pipe.set("a", "text").get("a").execute() == [True, b"text"]
            assert in_use(client) == 0
            with pytest.raises(redis.ResponseError, match="integer"):
                pipe.incr("a").execute()
            assert in_use(client) == 0


def test_a_cluster_has_its_own(cluster: Cluster) -> None:
    with cluster.client() as client, pytest.raises(ValueError, match=r"batch_execute\(\).*client\.pipeline\(\)"):
        FastBatch(client).pipeline()
