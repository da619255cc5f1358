"""The methods of both clients have the same arguments, and help() shows them."""

from __future__ import annotations

import inspect
import pydoc

import pytest

from redis_fastbatch import AsyncFastBatch, FastBatch

METHODS = sorted(name for name in dir(FastBatch) if name.startswith("batch_"))
ONLY_SYNCHRONOUS = {"workers"}


@pytest.mark.parametrize("name", METHODS)
def test_both_clients_take_the_same_arguments(name: str) -> None:
    both = [inspect.signature(getattr(client, name)).parameters for client in (FastBatch, AsyncFastBatch)]
    assert set(both[0]) - ONLY_SYNCHRONOUS == set(both[1]) - ONLY_SYNCHRONOUS
    for parameters in both:
        assert all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for parameter in both[1].values():
        assert parameter.default == both[0][parameter.name].default
        assert parameter.kind == both[0][parameter.name].kind


@pytest.mark.parametrize("client", [FastBatch, AsyncFastBatch])
def test_help_shows_the_arguments_of_tables(client: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(client.batch_set_table))  # type: ignore[attr-defined]
    for argument in ("table", "key", "prefix", "ex", "nx", "codec", "as_", "on_error"):
        assert f"{argument}:" in shown
    assert "pa.Table" in pydoc.plain(pydoc.render_doc(client.batch_get_table))  # type: ignore[attr-defined]
