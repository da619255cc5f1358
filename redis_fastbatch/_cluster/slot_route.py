"""Finds the node of a cluster for an atomic batch, whose keys share a slot. No input or output happens here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from redis.exceptions import AskError, MovedError

from redis_fastbatch._cluster.flight import DETOURS, FIRST_DELAY, MAX_DELAY, MAX_HOPS
from redis_fastbatch._cluster.topology import Topology
from redis_fastbatch._core.resp.routed import slot_of_key
from redis_fastbatch._engine.flight import InFlightChunk
from redis_fastbatch._engine.transaction import AtomicFlight
from redis_fastbatch.errors import EncodeError


class Redirected(Exception):
    """A node has refused an atomic batch, because another node has its slot, or no node has it now."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class OneSlotWrite(AtomicFlight):
    """An atomic batch whose keys share a slot.

    Args:
        slot: the slot.
        arguments, options: as AtomicFlight takes them.
    """

    def __init__(self, slot: int, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.slot = slot

    def _settle_many(self, settled: InFlightChunk) -> None:
        _raise_redirection(settled)
        super()._settle_many(settled)

    def _settle_closing(self, closing: InFlightChunk) -> None:
        for queued in self._queued:
            _raise_redirection(queued)
        super()._settle_closing(closing)

    def abort(self, error: BaseException) -> None:
        if isinstance(error, Redirected):
            # The node refused it as a whole, and it will be sent once more.
            self._start_over()
        else:
            super().abort(error)


def _raise_redirection(refused: InFlightChunk) -> None:
    for _, reply in refused.non_ok_replies:
        if isinstance(reply, (*DETOURS, AskError)):
            raise Redirected(reply)


class SlotRoute:
    """The way of an atomic batch to the node that has its slot.

    Args:
        topology: the nodes.
        flight: the batch.
        max_outage: seconds for which it is tried again while no node carries it out.
    """

    def __init__(self, topology: Topology, flight: OneSlotWrite, max_outage: float) -> None:
        self._topology = topology
        self._flight = flight
        self._deadline = time.monotonic() + max_outage
        self._delay = FIRST_DELAY
        self._hops = 0
        self._asked: Any = None

    def node(self) -> Any:
        """Return redis-py's node to send the batch to: the one that has the slot, as far as it is known."""
        self._asked = self._topology.nodes[self._topology.router.owner(self._flight.slot)]
        return self._asked

    def redirected(self, refusal: Redirected) -> float:
        """Handle the refusal of a node.

        Returns:
            Seconds to wait, after which the topology is to be refreshed and the batch sent again; 0 to send it to
            node() at once.

        Raises:
            Exception: the node's error, when no node has taken the batch in time. The batch is aborted then.
        """
        error = refusal.error
        if isinstance(error, MovedError) and self._hops < MAX_HOPS:
            self._topology.router.move(self._flight.slot, self._topology.target(error, self._asked))
            self._hops += 1
            return 0.0
        if time.monotonic() > self._deadline:
            self.lost()
            self._flight.abort(error)
            raise error from None
        delay, self._delay = self._delay, min(2 * self._delay, MAX_DELAY)
        return delay

    def lost(self) -> None:
        """Note that the node was lost, or took nothing: the next batch asks the cluster for its slots first."""
        self._topology.is_stale = True


def one_slot(items: Any, encoding: str, errors: str) -> tuple[list[Any], int]:
    """Return the items of an atomic batch, and the slot of all their keys.

    Args:
        items: a mapping or pairs.
        encoding, errors: how str keys become bytes.

    Raises:
        TypeError: a single string, which is not a batch.
        ValueError: keys are of several slots.
    """
    if isinstance(items, (str, bytes, bytearray)):
        raise TypeError(f"a batch of items is expected, not one {type(items).__name__}")
    pairs = list(items.items() if isinstance(items, Mapping) else items)
    first: tuple[Any, int] | None = None
    for pair in pairs:
        # The flight reports items that are not pairs, and keys that cannot be encoded.
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            continue
        with contextlib.suppress(EncodeError, TypeError, ValueError):
            key = pair[0]
            slot = slot_of_key(key, encoding, errors)
            first = first or (key, slot)
            if slot != first[1]:
                break
    else:
        return pairs, first[1] if first else 0
    raise ValueError(
        "an atomic batch is one command, and a cluster carries one out only where all keys share a slot: "
        f"{first[0]!r} is in slot {first[1]}, {key!r} in {slot}; keys with a common {{tag}} share one"
    )
