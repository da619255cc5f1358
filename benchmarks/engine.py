"""Batches to a server and back: ours, every peer and the floor, by server, operation, shape and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from benchmarks import floor, peers, serializers, servers, shapes, verify, wire
from benchmarks.disturbance import Watch
from benchmarks.measure import Contender, Role, frozen_heap, interleaved
from benchmarks.peers.base import OURS, Peer
from benchmarks.results import Cell
from benchmarks.servers import Endpoint

OPERATIONS = ("set", "set_ex", "get")
EXPIRY_SECONDS = 3600


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        rounds: how many, by the number of items.
        repeats: how many rounds of a cell may be measured again because other programs were busy.
        only: parts of names; a peer is measured if its name contains one of them.
        fresh: empty the server before each write. Otherwise the keys exist and hold the same bytes
            already, as in a cache that is refreshed.
        codec: "msgpack" for all peers, or "json" for those that store JSON.
    """

    servers: Sequence[str]
    shapes: Sequence[str]
    sizes: Sequence[int]
    operations: Sequence[str]
    rounds: Callable[[int], int]
    repeats: int
    only: Sequence[str] = ()
    fresh: bool = False
    codec: str = "msgpack"


def run(plan: Plan) -> Iterator[Cell]:
    """Yield a cell for each combination of the plan, as soon as it is measured."""
    for server in plan.servers:
        with (
            servers.running(server) as endpoint,
            peers.connected(endpoint, plan.codec) as everyone,
            servers.apart(endpoint),
        ):
            contenders = [peer for peer in everyone if _wanted(peer, plan.only)]
            for shape in plan.shapes:
                if plan.codec == "json" and not shapes.SHAPES[shape].json:
                    continue
                for size in plan.sizes:
                    if size <= shapes.SHAPES[shape].largest:
                        yield from _Batch(plan, server, endpoint, contenders, shape, size).cells()


def _wanted(peer: Peer, only: Sequence[str]) -> bool:
    return not only or peer.name.startswith(OURS) or any(part in peer.name for part in only)


class _Batch:
    """One shape and size on one server."""

    def __init__(
        self, plan: Plan, server: str, endpoint: Endpoint, contenders: Sequence[Peer], shape: str, size: int
    ) -> None:
        self._plan = plan
        self._server = server
        self._endpoint = endpoint
        self._peers = contenders
        self._shape = shape
        self._items = shapes.make(shape, size)
        self._keys = list(self._items)
        self._pairs = wire.encoded(self._items)
        if plan.codec == "json":
            self._items = shapes.as_json(self._items)
            self._pairs = wire.encoded(self._items, serializers.ORJSON)

    def cells(self) -> Iterator[Cell]:
        """Measure the operations one after the other."""
        for operation in self._plan.operations:
            servers.empty(self._endpoint)
            with frozen_heap(), closing(floor.BareSocket(self._endpoint)) as bare:
                yield self._cell(operation, bare)

    def _cell(self, operation: str, bare: floor.BareSocket) -> Cell:
        able = [peer for peer in self._peers if operation in peer.operations]
        if operation == "get":
            self._load(able)
            contenders = [self._reader(peer) for peer in able] + self._floor_readers(bare)
        else:
            seconds = EXPIRY_SECONDS if operation == "set_ex" else None
            contenders = [self._writer(peer, seconds) for peer in able] + self._floor_writers(bare, seconds)
        watch = Watch([self._endpoint.pid], self._plan.repeats)
        timings = interleaved(contenders, self._plan.rounds(len(self._items)), watch)
        value_bytes = sum(len(value) for _, value in self._pairs)
        return Cell(self._server, operation, self._shape, len(self._items), value_bytes, timings, watch.share)

    def _load(self, able: Sequence[Peer]) -> None:
        for peer in {peer.wire: peer for peer in able}.values():
            peer.set(self._items)

    def _reader(self, peer: Peer) -> Contender:
        return Contender(
            peer.name,
            _role(peer),
            partial(peer.get, self._keys),
            lambda: verify.check_equal(self._items, peer.get(self._keys)),
        )

    def _writer(self, peer: Peer, seconds: int | None) -> Contender:
        write = partial(peer.set, self._items)
        if seconds is not None:
            write = partial(peer.set_ex, self._items, seconds)
        return self._checked_writer(peer.name, _role(peer), write, write, peer.wire, seconds)

    def _floor_readers(self, bare: floor.BareSocket) -> list[Contender]:
        scripts = floor.read_scripts(self._pairs)
        readers = [
            Contender(script.name, "floor", partial(bare.run, script), partial(bare.check, script))
            for script in scripts
        ]
        if self._plan.codec == "msgpack":
            readers.append(self._decoding_floor(bare, scripts[-1]))
        return readers

    def _decoding_floor(self, bare: floor.BareSocket, script: floor.Script) -> Contender:
        """Return the floor that also decodes the values, one after the other, once all replies have come."""
        loads = serializers.MSGSPEC.loads

        def read() -> dict[str, object]:
            bare.run(script)
            return {key: loads(value) for key, (_, value) in zip(self._keys, self._pairs, strict=True)}

        return Contender(
            f"{script.name}, decoded by msgspec",
            "decoding floor",
            read,
            lambda: verify.check_equal(self._items, read()),
        )

    def _floor_writers(self, bare: floor.BareSocket, seconds: int | None) -> list[Contender]:
        return [
            self._checked_writer(
                script.name,
                "floor",
                partial(bare.run, script),
                partial(bare.check, script),
                self._plan.codec,
                seconds,
            )
            for script in floor.write_scripts(self._pairs, seconds, self._endpoint.msetex)
        ]

    def _checked_writer(
        self,
        name: str,
        role: Role,
        write: Callable[[], None],
        write_watched: Callable[[], None],
        wire_format: str,
        seconds: int | None,
    ) -> Contender:
        def check() -> None:
            # The server is empty before, so that everything found afterwards was written by this contender.
            servers.empty(self._endpoint)
            write_watched()
            verify.check_stored(self._endpoint, wire_format, self._items, seconds)

        if self._plan.fresh:
            return Contender(name, role, write, check, partial(servers.empty, self._endpoint))
        return Contender(name, role, write, check)


def _role(peer: Peer) -> Role:
    return "ours" if peer.name.startswith(OURS) else "peer"
