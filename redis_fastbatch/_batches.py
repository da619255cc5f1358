"""Carrying out batches: what the methods of FastBatch share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


def write_with(lease: AbstractContextManager[Any], begin: Callable[[Any], Any]) -> None:
    """Carry out a batch of writes.

    Args:
        lease: lends a connection, or those of a cluster's nodes.
        begin: called with what is lent. Returns the batch's flight; None if the batch is done already.

    Raises:
        BaseException: what has ended the source of the items.
    """
    with lease as borrowed:
        flight = begin(borrowed)
        if flight is None:
            return
        with flight:
            borrowed.run(flight)
    if flight.source_error is not None:
        raise flight.source_error
