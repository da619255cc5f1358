"""OpenTelemetry for batches, where redis-py records its own operations: a span, and redis-py's metrics.

redis-py's recorder has the meter, its settings and the names of attributes. It has no spans yet, so a batch makes
its own, with the global tracer provider. Nothing is recorded or imported, unless the program has switched it on
before it makes a client, by get_observability_instance().init().
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from redis_fastbatch._version import __version__

# Earlier versions of redis-py have no observability.
try:
    from redis.observability import providers, recorder
except ImportError:
    providers = None  # type: ignore[assignment]
    recorder = None  # type: ignore[assignment]

Method = TypeVar("Method", bound=Callable[..., Any])


def is_on() -> bool:
    """Return whether redis-py's observability was switched on."""
    return providers is not None and providers.get_observability_instance().get_provider_manager() is not None


def observed(operation: str) -> Callable[[Method], Method]:
    """Return a decorator for a method of a client that carries out a batch, or returns an iterator that does.

    It only marks the method, for observe(): a wrapper would be noticed in batches of one item.

    Args:
        operation: the name of the operation, a command.
    """

    def mark(method: Method) -> Method:
        method.operation = operation  # type: ignore[attr-defined]
        return method

    return mark


def observe(batch: Any) -> None:
    """Let a client record the batches of its marked methods, if redis-py's observability is on."""
    if not is_on():
        return
    kind = type(batch)
    for name in dir(kind):
        method = getattr(kind, name)
        operation = getattr(method, "operation", None)
        if operation is not None and inspect.isfunction(method):
            # In the object, so that the clients of programs without observability have no wrappers.
            setattr(batch, name, _observing(batch, getattr(kind, name), operation))


def _observing(batch: Any, method: Callable[..., Any], operation: str) -> Callable[..., Any]:
    """Return a method of a client that also records its batches."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def coroutine(*args: Any, **options: Any) -> Any:
            async with AsyncObservation(batch._client, operation) as seen:
                result = await method(batch, *args, **options)
                seen.size = _size_of(result, *args, *options.values())
            return result

        return coroutine

    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        if method.__name__.endswith("_iter"):
            found = method(batch, *args, **options)
            if hasattr(found, "__aiter__"):
                return _async_iteration(found, AsyncObservation(batch._client, operation))
            return _iteration(found, Observation(batch._client, operation))
        with Observation(batch._client, operation) as seen:
            result = method(batch, *args, **options)
            seen.size = _size_of(result, *args, *options.values())
        return result

    return call


def _iteration(found: Any, observation: Observation) -> Iterator[Any]:
    with observation as seen:
        seen.size = 0
        with contextlib.closing(found):
            for item in found:
                seen.size += 1
                yield item


async def _async_iteration(found: Any, observation: AsyncObservation) -> AsyncIterator[Any]:
    async with observation as seen:
        seen.size = 0
        async with contextlib.aclosing(found):
            async for item in found:
                seen.size += 1
                yield item


def _size_of(result: Any, given: Any, *_: Any) -> int | None:
    """Return how many items a batch had: from its report, its result, or its first argument."""
    for counted in (getattr(result, "total", None), getattr(result, "num_rows", None)):
        if isinstance(counted, int):
            return counted
    for sized in (result, given):
        if hasattr(sized, "__len__"):
            return len(sized)
    return None


class Observation:
    """A batch that is observed: a context, from its beginning to its end.

    The span is not the current one, because the code between two items of an iterator is not part of the batch.

    Args:
        client: the client of redis-py.
        operation: the name of the operation.

    Attributes:
        size: how many items the batch had; None if that is not known.
    """

    def __init__(self, client: Any, operation: str) -> None:
        from opentelemetry import trace

        self.size: int | None = None
        self._operation = operation
        self._place = _place_of(client)
        attributes = {
            "db.system.name": "redis",
            "db.operation.name": operation,
            "server.address": self._place.get("server_address"),
            "server.port": self._place.get("server_port"),
            "db.namespace": self._place.get("db_namespace"),
        }
        self._attributes = {name: value for name, value in attributes.items() if value is not None}
        self._tracer = trace.get_tracer("redis_fastbatch", __version__)
        self._trace = trace
        self._started = 0.0
        self._span: Any = None

    def _begin(self) -> None:
        self._started = time.monotonic()
        kind = self._trace.SpanKind.CLIENT
        self._span = self._tracer.start_span(self._operation, kind=kind, attributes=self._attributes)

    def _end(self, error: BaseException | None) -> dict[str, Any]:
        """End the span, and return the arguments of the recorder for the batch's duration."""
        failed = None if isinstance(error, GeneratorExit) else error
        if failed is not None:
            report = getattr(failed, "report", None)
            self.size = self.size if report is None else report.total
            kind = type(failed)
            self._span.set_attribute("error.type", f"{kind.__module__}.{kind.__qualname__}")
            self._span.record_exception(failed)
            self._span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, str(failed)))
        if self.size is not None:
            self._span.set_attribute("db.operation.batch.size", self.size)
        self._span.end()
        duration = time.monotonic() - self._started
        return {"command_name": self._operation, "duration_seconds": duration, "error": failed, **self._place}

    def _failure(self, error: BaseException) -> dict[str, Any]:
        """Return the arguments of the recorder for an error."""
        address, port = self._place.get("server_address"), self._place.get("server_port")
        return {
            "server_address": address,
            "server_port": port,
            "network_peer_address": address,
            "network_peer_port": port,
            "error_type": error,
            "retry_attempts": 0,
            "is_internal": False,
        }

    def __enter__(self) -> Observation:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        arguments = self._end(error)
        recorder.record_operation_duration(**arguments)
        if arguments["error"] is not None:
            recorder.record_error_count(**self._failure(arguments["error"]))


class AsyncObservation(Observation):
    """An Observation of a batch of asyncio, which has a recorder of its own in redis-py."""

    async def __aenter__(self) -> AsyncObservation:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from redis.asyncio.observability import recorder

        arguments = self._end(error)
        await recorder.record_operation_duration(**arguments)
        if arguments["error"] is not None:
            await recorder.record_error_count(**self._failure(arguments["error"]))


def _place_of(client: Any) -> dict[str, Any]:
    """Return the recorder's arguments for the server that a client uses; none for a cluster, which has several."""
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        return {}
    settings = pool.connection_kwargs
    return {
        "server_address": settings.get("host", settings.get("path")),
        "server_port": settings.get("port"),
        "db_namespace": str(settings.get("db", 0)),
    }
