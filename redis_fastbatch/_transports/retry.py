"""When a flight is tried again after a lost connection. redis-py's Retry does the waiting."""

from __future__ import annotations

from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError

from redis_fastbatch._engine.flight import Flight


class _ProgressMade(Exception):
    """A connection was lost after replies had come over it, so that the Retry starts to count again at zero."""


class _Final(BaseException):
    """Carries an error that ends the flight. No Retry handles it, whatever errors that is for."""


class Attempts:
    """The attempts at one flight, perhaps over several connections one after the other.

    The first attempt is made without a Retry, which it does not need if it succeeds. If it fails, first_failed()
    keeps its error for the Retry. Each further attempt calls begin() first. The Retry gets what failed() returns;
    verdict() gets what the Retry raises.

    Args:
        flight: the flight to carry out.
        settled: the flight's `settled` before the first attempt.
    """

    def __init__(self, flight: Flight, settled: int) -> None:
        self._flight = flight
        self._settled = settled
        self._pending: BaseException | None = None

    def first_failed(self, error: Exception) -> None:
        """Keep the error of the first attempt, which begin() raises within the Retry."""
        self._pending = self.failed(error)

    def begin(self) -> None:
        """Begin an attempt.

        Raises:
            BaseException: the error of an attempt that this Retry has not seen. It gets it as its first.
        """
        if self._pending is not None:
            error, self._pending = self._pending, None
            raise error
        self._settled = self._flight.settled

    def failed(self, error: Exception) -> BaseException:
        """Return what the Retry is to get for an attempt that raised `error`."""
        lost = isinstance(error, (ConnectionError, TimeoutError)) and not self._flight.hook_raised
        if not lost or not self._flight.connection_lost():
            return _Final(error)
        if self._flight.settled > self._settled:
            return _ProgressMade(error)
        return error

    def verdict(self, error: BaseException) -> BaseException | None:
        """Return what the flight ends with after the Retry raised `error`; None to start the Retry again."""
        if isinstance(error, _ProgressMade):
            self._pending = error.args[0]
            return None
        if isinstance(error, BusyLoadingError) and self._flight.wait_while_loading:
            self._flight.wait_while_loading = False
            return None
        if isinstance(error, _Final):
            return error.args[0]  # type: ignore[no-any-return]
        return error
