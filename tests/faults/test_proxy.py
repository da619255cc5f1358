"""The fault proxy injects faults exactly where tests ask for them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from faults.matrix import state_changes
from faults.proxy import FaultProxy
from faults.streams import Direction, Fault, Lane, ReplyFramer, Then
from redis_fastbatch.server import EmbeddedServer
from servers import wait_until

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT
OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


@pytest.fixture
def proxy(valkey: EmbeddedServer) -> Iterator[FaultProxy]:
    with FaultProxy(valkey.port, record=True) as running:
        yield running


def connect(proxy: FaultProxy) -> socket.socket:
    """Open a bare connection, because redis-py sends commands when it connects."""
    return socket.create_connection((proxy.host, proxy.port), timeout=5)


def ask(sock: socket.socket, request: bytes, length: int) -> bytes:
    """Send a request, and read up to `length` bytes."""
    sock.sendall(request)
    return read(sock, length)


def read(sock: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length and (piece := sock.recv(length - len(received))):
        received += piece
    return received


def is_silent(sock: socket.socket) -> bool:
    """Return whether nothing is received for a while, not even the end of the stream."""
    sock.settimeout(0.15)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5)
    return False


class TestReplyFramer:
    REPLIES = (
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":1\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\r\n:b\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        b"%1\r\n+k\r\n*2\r\n_\r\n#t\r\n",
        b"~1\r\n,1.5\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"!5\r\nERR x\r\n",
        b"(123\r\n",
        b"|1\r\n+ttl\r\n:3\r\n+OK\r\n",
        b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
    )

    @given(messages=st.lists(st.sampled_from((*REPLIES, PUSH))), cut=st.integers(min_value=1, max_value=30))
    def test_every_end_is_found_in_any_pieces(self, messages: list[bytes], cut: int) -> None:
        expected, position, count = [], 0, 0
        for message in messages:
            position += len(message)
            count += message != PUSH
            expected.append((position, count))
        stream, framer = b"".join(messages), ReplyFramer()
        found = [end for at in range(0, len(stream), cut) for end in framer.feed(stream[at : at + cut])]
        assert found == expected
        assert not framer.lost

    @pytest.mark.parametrize("garbage", [b"\x00\xff\r\n", b"$x\r\n", b"HTTP/1.1 400\r\n", b"?1\r\n"])
    def test_nothing_is_found_after_garbage(self, garbage: bytes) -> None:
        framer = ReplyFramer()
        assert framer.feed(b"+OK\r\n" + garbage + b"+OK\r\n") == [(5, 1)]
        assert framer.lost


def passed(data: bytes, cut: int, *faults: Fault) -> tuple[bytes, list[Then]]:
    """Return the bytes passed from a stream that arrives in pieces, and what happens to its connection."""
    lane = Lane(TO_CLIENT)
    for fault in faults:
        lane.arm(fault)
    steps = [step for at in range(0, len(data), cut) for step in lane.feed(data[at : at + cut])]
    return b"".join(piece for piece, _ in steps), [then for _, then in steps if then is not Then.PASS]


class TestLane:
    STREAM = b"+1\r\n$2\r\nab\r\n+3\r\n"

    @pytest.mark.parametrize("cut", range(1, 18))
    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (Fault(), STREAM),
            (Fault(insert=b"X"), b"X" + STREAM),
            (Fault(after_bytes=2, insert=b"X"), b"+1X\r\n$2\r\nab\r\n+3\r\n"),
            (Fault(after_bytes=2, insert=b"X", drop_bytes=3), b"+1X2\r\nab\r\n+3\r\n"),
            (Fault(after_replies=1, insert=OOM), b"+1\r\n" + OOM + b"$2\r\nab\r\n+3\r\n"),
            (Fault(after_replies=1, insert=OOM, drop_replies=1), b"+1\r\n" + OOM + b"+3\r\n"),
            (Fault(after_replies=0, drop_replies=2), b"+3\r\n"),
            (Fault(after_replies=3, insert=PUSH), STREAM + PUSH),
            (Fault(after_bytes=9, drop_replies=1), b"+1\r\n$2\r\na"),
            (Fault(after_bytes=100, insert=b"X"), STREAM),
            (Fault(after_replies=4, insert=b"X"), STREAM),
            (Fault(direction=TO_SERVER, insert=b"X"), STREAM),
        ],
    )
    def test_one_fault_changes_the_stream(self, fault: Fault, expected: bytes, cut: int) -> None:
        assert passed(self.STREAM, cut, fault) == (expected, [])

    def test_several_faults_change_the_stream(self) -> None:
        insert = Fault(after_replies=2, insert=PUSH)
        replace = Fault(after_replies=0, insert=OOM, drop_replies=1, then=Then.CUT)
        expected = OOM + b"$2\r\nab\r\n" + PUSH + b"+3\r\n"
        assert passed(self.STREAM, 3, insert, replace) == (expected, [Then.CUT])

    def test_places_are_counted_from_the_current_position(self) -> None:
        lane = Lane(TO_CLIENT)
        before = list(lane.feed(b"+1\r\n+"))
        lane.arm(Fault(after_replies=1, insert=b"X"))
        lane.arm(Fault(after_bytes=1, insert=b"Y"))
        after = lane.feed(b"2\r\n" + PUSH + b"+3\r\n+4\r\n")
        assert b"".join(piece for piece, _ in [*before, *after]) == (b"+1\r\n+2Y\r\n" + PUSH + b"+3\r\nX+4\r\n")

    def test_a_replacement_waits_for_the_reply_that_it_replaces(self) -> None:
        lane = Lane(TO_CLIENT)
        lane.arm(Fault(after_replies=1, insert=b"X", drop_replies=1))
        lane.arm(Fault(after_replies=2, insert=b"Y"))
        pieces = [b"".join(piece for piece, _ in lane.feed(reply)) for reply in (b"+1\r\n", b"+2\r\n")]
        assert pieces == [b"+1\r\n", b"XY"]

    def test_a_push_message_does_not_count_as_a_reply(self) -> None:
        fault = Fault(after_replies=1, insert=b"X")
        assert passed(PUSH + b"+1\r\n+2\r\n", 4, fault) == (PUSH + b"+1\r\nX+2\r\n", [])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"after_bytes": 1, "after_replies": 1},
            {"drop_bytes": 1, "drop_replies": 1},
            {"direction": TO_SERVER, "after_replies": 0},
            {"direction": TO_SERVER, "drop_replies": 1},
            {"after_bytes": -1},
            {"bytes_per_second": 0},
        ],
    )
    def test_invalid_faults_are_refused(self, wrong: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=r"fault|replies|negative|positive"):
            Fault(**wrong)  # type: ignore[arg-type]


class TestRelay:
    def test_bytes_pass_unchanged_without_faults(self, proxy: FaultProxy) -> None:
        client = redis.Redis(port=proxy.port)
        value = bytes(range(256)) * 20000
        assert client.set("k", value)
        assert client.get("k") == value
        assert proxy.connections == 1
        assert proxy.seen(TO_SERVER) == len(proxy.recorded(TO_SERVER)) > len(value)
        assert value in proxy.recorded(TO_CLIENT)
        client.close()
        wait_until(lambda: proxy.open_connections == 0, "the proxy closes the connection")

    def test_many_connections_can_be_open(self, proxy: FaultProxy) -> None:
        clients = [redis.Redis(port=proxy.port) for _ in range(20)]
        threads = [threading.Thread(target=client.ping) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert proxy.connections == proxy.open_connections == 20

    def test_the_client_may_close_one_direction(self, proxy: FaultProxy) -> None:
        with connect(proxy) as sock:
            sock.sendall(b"PING\r\n" * 3)
            assert read(sock, 7) == b"+PONG\r\n"
            sock.shutdown(socket.SHUT_WR)
            assert read(sock, 100) == b"+PONG\r\n" * 2

    def test_a_missing_server_closes_the_connection(self, valkey: EmbeddedServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        # The reset may arrive before connect() returns.
        with FaultProxy(port) as proxy, contextlib.suppress(ConnectionResetError), connect(proxy) as sock:
            assert sock.recv(1) == b""

    def test_nothing_is_recorded_without_record(self, valkey: EmbeddedServer) -> None:
        with FaultProxy(valkey.port) as proxy, pytest.raises(ValueError, match="record=True"):
            proxy.recorded(TO_CLIENT)

    def test_the_proxy_ends_with_open_and_stalled_connections(self, valkey: EmbeddedServer) -> None:
        before = threading.active_count()
        with FaultProxy(valkey.port) as proxy:
            proxy.inject(Fault(then=Then.STALL))
            with connect(proxy) as stalled, connect(proxy) as idle:
                stalled.sendall(b"PING\r\n")
                assert ask(idle, b"PING\r\n", 7) == b"+PONG\r\n"
        assert threading.active_count() == before


class TestFaults:
    def test_a_cut_to_the_server_delivers_the_bytes_before_it(
        self, proxy: FaultProxy, valkey_client: redis.Redis
    ) -> None:
        proxy.inject(Fault(direction=TO_SERVER, after_bytes=13, then=Then.CUT))
        with connect(proxy) as sock:
            assert ask(sock, b"SET a 1\r\nSET b 2\r\n", 100) in (b"", b"+OK\r\n")
        wait_until(lambda: valkey_client.get("a") == b"1", "the first command is executed")
        assert valkey_client.exists("b") == 0

    def test_a_cut_to_the_client_delivers_the_bytes_before_it(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(after_bytes=10, then=Then.CUT))
        with connect(proxy) as sock:
            assert ask(sock, b"PING\r\n" * 5, 100) == (b"+PONG\r\n" * 5)[:10]

    def test_a_cut_after_a_reply_happens_at_once(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(after_replies=1, then=Then.CUT))
        with connect(proxy) as sock:
            assert ask(sock, b"PING\r\n", 100) == b"+PONG\r\n"

    def test_a_reset_is_received_by_the_client(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(after_bytes=0, then=Then.RESET))
        with connect(proxy) as sock, pytest.raises(ConnectionResetError):
            ask(sock, b"PING\r\n", 7)

    def test_a_stalled_stream_continues_after_release(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(after_bytes=7, then=Then.STALL))
        with connect(proxy) as sock:
            assert ask(sock, b"PING\r\n" * 2, 7) == b"+PONG\r\n"
            assert is_silent(sock)
            proxy.release()
            assert read(sock, 7) == b"+PONG\r\n"

    def test_a_stalled_stream_is_not_read(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(direction=TO_SERVER, after_bytes=0, then=Then.STALL))
        with connect(proxy) as sock:
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                sock.sendall(bytes(64 << 20))
            assert proxy.seen(TO_SERVER) <= 65536

    def test_a_delay_applies_to_every_read(self, proxy: FaultProxy) -> None:
        with connect(proxy) as sock:
            ask(sock, b"PING\r\n", 7)
            proxy.inject_now(Fault(delay=0.15))
            for _ in range(2):
                start = time.monotonic()
                ask(sock, b"PING\r\n", 7)
                assert time.monotonic() - start >= 0.15

    def test_bytes_per_second_limits_the_speed(self, proxy: FaultProxy, valkey_client: redis.Redis) -> None:
        valkey_client.set("k", bytes(20000))
        proxy.inject(Fault(bytes_per_second=100_000))
        with connect(proxy) as sock:
            start = time.monotonic()
            assert len(ask(sock, b"GET k\r\n", 20010)) == 20010
            assert time.monotonic() - start >= 0.15

    def test_a_reply_can_be_replaced_by_an_error(self, proxy: FaultProxy) -> None:
        client = redis.Redis(port=proxy.port)
        client.ping()
        proxy.inject_now(Fault(after_replies=1, insert=OOM, drop_replies=1))
        assert client.set("a", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("b", 2)
        assert client.get("b") == b"2"

    def test_a_push_message_can_be_inserted(self, proxy: FaultProxy) -> None:
        with connect(proxy) as sock:
            sock.sendall(b"HELLO 3\r\nECHO over\r\n")
            greeting = b""
            while not greeting.endswith(b"over\r\n"):
                greeting += sock.recv(1)
            proxy.inject_now(Fault(after_replies=1, insert=PUSH))
            expected = b"+PONG\r\n" + PUSH + b"+PONG\r\n"
            assert ask(sock, b"PING\r\nPING\r\n", len(expected)) == expected

    def test_bytes_can_be_replaced_by_garbage(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(after_bytes=1, insert=b"\x00\xff", drop_bytes=2))
        with connect(proxy) as sock:
            assert ask(sock, b"PING\r\n", 7) == b"+\x00\xffNG\r\n"

    def test_faults_apply_to_the_given_number_of_connections(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(insert=b"X"), connections=2)
        proxy.inject(Fault(insert=b"Y"))
        replies = []
        for _ in range(4):
            with connect(proxy) as sock:
                replies.append(ask(sock, b"PING\r\n", 7)[:1])
        assert replies == [b"X", b"X", b"Y", b"+"]

    def test_faults_apply_to_all_connections_until_cleared(self, proxy: FaultProxy) -> None:
        proxy.inject(Fault(insert=b"X"), connections=None)
        for _ in range(3):
            with connect(proxy) as sock:
                assert ask(sock, b"PING\r\n", 7)[:1] == b"X"
        proxy.clear()
        with connect(proxy) as sock:
            assert ask(sock, b"PING\r\n", 7) == b"+PONG\r\n"

    def test_disconnect_closes_open_connections(self, proxy: FaultProxy) -> None:
        with connect(proxy) as sock:
            assert ask(sock, b"PING\r\n", 7) == b"+PONG\r\n"
            proxy.disconnect()
            assert sock.recv(1) == b""
        with connect(proxy) as sock:
            assert ask(sock, b"PING\r\n", 7) == b"+PONG\r\n"


def test_state_changes_in_replies_are_all_bytes_but_those_within_strings() -> None:
    stream = b"*2\r\n$9\r\nabc$9\r\nde\r\n$0\r\n\r\n:1\r\n$-1\r\n"
    within = {10, 11, 13, 14, 15}
    assert state_changes(stream, TO_CLIENT) == [place for place in range(len(stream)) if place not in within]


def test_state_changes_in_commands_are_their_ends_and_middles() -> None:
    stream = b"*1\r\n$4\r\nPING\r\n" + b"*2\r\n$3\r\nGET\r\n$6\r\n*1\r\n$4\r\n"
    assert state_changes(stream, TO_SERVER) == [0, 1, 7, 13, 14, 15, 26, len(stream) - 1]
