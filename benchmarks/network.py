"""Batches over networks that are not loopback: `python -m benchmarks network`.

A proxy in a process of its own delays and throttles the connections. TLS is measured on loopback, with Debian's
redis-server.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import servers, shapes, verify
from benchmarks.measure import Contender, Role, frozen_heap, interleaved
from benchmarks.peers.base import OURS, Peer
from benchmarks.peers.fastbatch import Ours
from benchmarks.peers.redispy import OneCommand, Pipeline
from benchmarks.proxy import Link, proxied
from benchmarks.results import Cell
from benchmarks.serializers import MSGSPEC
from benchmarks.servers import Endpoint
from redis_fastbatch.server import FREE_PORT, EmbeddedServer, ServerError, find_binary

RATE = 1000
"""Megabits per second of each network."""
LINKS = {
    "loopback": None,
    "0.2ms": Link(0.1, RATE),
    "1ms": Link(0.5, RATE),
    "10ms": Link(5, RATE),
    "tls": None,
}
"""The networks, by the round trip that they add to loopback's."""
SIZES = [1, 10, 100, 1_000, 10_000, 100_000]
MANY = 10_000
OPERATIONS = ("set", "get")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--links", type=lambda text: text.split(","), default=list(LINKS))
    parser.add_argument("--sizes", type=lambda text: [int(n) for n in text.split(",")], default=SIZES)
    parser.add_argument("--shape", choices=sorted(shapes.SHAPES), default="dict5")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--large-rounds", type=int, default=5, help=f"rounds of {MANY:,} items or more")


def _glide(endpoint: Endpoint) -> list[Peer]:
    """Return valkey-glide's contenders; none where it is not installed, as it has no wheel for Python 3.15."""
    try:
        from benchmarks.peers import glide
    except ImportError:
        return []
    return [glide.Pipeline(endpoint, MSGSPEC), glide.OneCommand(endpoint, MSGSPEC)]


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield a cell for each network, size and operation, as soon as it is measured."""
    for name in options.links:
        with _reached(name) as endpoint, servers.apart(endpoint), ExitStack() as stack:
            everyone = [
                Ours(endpoint, "msgpack"),
                Pipeline(endpoint, MSGSPEC, transaction=False),
                OneCommand(endpoint, MSGSPEC),
                *_glide(endpoint),
            ]
            for peer in everyone:
                stack.callback(peer.close)
            for size in options.sizes:
                for operation in OPERATIONS:
                    yield _cell(options, name, endpoint, everyone, operation, size)


@contextmanager
def _reached(name: str) -> Iterator[Endpoint]:
    """Start a server, and yield how clients reach it over that network."""
    link = LINKS[name]
    if name == "tls":
        with _with_tls() as endpoint:
            yield endpoint
        return
    with servers.running("valkey") as endpoint:
        if link is None:
            yield endpoint
            return
        with proxied(endpoint.port, link) as port:
            yield replace(endpoint, port=port)


@contextmanager
def _with_tls() -> Iterator[Endpoint]:
    import trustme

    binary = find_binary("debian")
    if binary is None:
        raise ServerError("tls: redis-server is not installed. Install Debian's package redis-server")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        ca, key, chain = (Path(folder, name) for name in ("ca.pem", "server.key", "server.pem"))
        authority.cert_pem.write_to_path(ca)
        certificate.private_key_pem.write_to_path(key)
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(chain, append=True)
        with EmbeddedServer(
            binary,
            tls_port=FREE_PORT,
            tls_cert_file=str(chain),
            tls_key_file=str(key),
            tls_ca_cert_file=str(ca),
            tls_auth_clients=False,
        ) as server:
            yield Endpoint(
                server.host, server.port_of("tls_port"), server.pid, server.version, msetex=False, ca=str(ca)
            )


def _cell(
    options: argparse.Namespace,
    link: str,
    endpoint: Endpoint,
    everyone: Sequence[Peer],
    operation: str,
    size: int,
) -> Cell:
    items = shapes.make(options.shape, size)
    keys = list(items)
    servers.empty(endpoint)
    everyone[0].set(items)

    def contender(peer: Peer) -> Contender:
        role: Role = "ours" if peer.name == OURS else "peer"
        if operation == "get":
            return Contender(
                peer.name, role, partial(peer.get, keys), lambda: verify.check_equal(items, peer.get(keys))
            )

        def check() -> None:
            servers.empty(endpoint)
            peer.set(items)
            verify.check_stored(endpoint, peer.wire, items, None)

        return Contender(peer.name, role, partial(peer.set, items), check)

    rounds = options.rounds if size < MANY else options.large_rounds
    with frozen_heap():
        timings = interleaved([contender(peer) for peer in everyone], rounds)
    return Cell(link, operation, options.shape, size, shapes.value_bytes(items), timings)
