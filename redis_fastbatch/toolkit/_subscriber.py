"""The thread that listens to channels."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import redis

from redis_fastbatch.toolkit.options import RedisOptions

logger = logging.getLogger("redis_fastbatch")

POLL_SECONDS = 0.1
"""How soon a channel that was added or taken away is subscribed to or not any more, at the latest."""

CONFIRM_SECONDS = 1.0
"""How long to wait for the server to confirm a subscription."""


class Subscriber:
    """Listens to the channels of a list that may change at any time.

    Args:
        client: returns the client to listen through.
        channels: the channels; the caller's own list, looked at again and again.
        handle: called with each message, in the subscriber's thread.
        options: say how long to wait for what.
        name: the thread's name.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        channels: list[str],
        handle: Callable[[dict[str, Any]], None],
        options: RedisOptions,
        name: str,
    ) -> None:
        self.thread: threading.Thread | None = None
        self.wanted = True
        self._client = client
        self._channels = channels
        self._handle = handle
        self._options = options
        self._name = name
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._confirmed: set[str] = set()
        self._confirmation = threading.Condition()

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self.thread is not None and self.thread.is_alive()

    def start(self) -> None:
        """Starts the thread, if it does not run."""
        with self._lock:
            if self.alive and not self._stop.is_set():
                return
            self.wanted = True
            # Each thread has a stop sign of its own: one that is slow to end does not come to life again.
            self._stop = threading.Event()
            with self._confirmation:
                self._confirmed.clear()
            self.thread = threading.Thread(target=self._run, args=(self._stop,), daemon=True, name=self._name)
            self.thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for that as long as the options say."""
        self.wanted = False
        self._stop.set()
        thread = self.thread
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            return
        thread.join(self._options.subscriber_stop_timeout)
        if thread.is_alive():
            logger.warning("the subscriber has not ended within subscriber_stop_timeout")

    def wait_for(self, channel: str) -> bool:
        """Waits a moment for the server to confirm a subscription; False when it has not, or not yet."""
        if self.thread is threading.current_thread():
            return False
        with self._confirmation:
            return self._confirmation.wait_for(lambda: channel in self._confirmed, CONFIRM_SECONDS)

    def _run(self, stop: threading.Event) -> None:
        while self._goes_on(stop):
            try:
                with contextlib.closing(self._client().pubsub()) as pubsub:
                    self._listen(pubsub, stop)
            except redis.ConnectionError as error:
                logger.error("the subscriber lost its connection: %s", error)
                self._wait_for_server(stop)
            except Exception as error:
                logger.error("the subscriber failed: %s", error)
                stop.wait(self._options.subscriber_retry_delay)
            finally:
                with self._confirmation:
                    if stop is self._stop:
                        self._confirmed.clear()

    def _goes_on(self, stop: threading.Event) -> bool:
        """False when the thread is to end; a start() from then on makes another."""
        with self._lock:
            if not self.wanted or not self._channels:
                stop.set()
            return not stop.is_set()

    def _listen(self, pubsub: Any, stop: threading.Event) -> None:
        subscribed: set[str] = set()
        while not stop.is_set() and self.wanted:
            # Under the lock, so that whoever takes a channel up again right now waits for a new confirmation.
            with self._confirmation:
                wanted = set(self._channels)
                self._confirmed &= wanted
            if not wanted:
                return
            if subscribed - wanted:
                pubsub.unsubscribe(*(subscribed - wanted))
            if wanted - subscribed:
                pubsub.subscribe(*(wanted - subscribed))
            subscribed = wanted
            message = pubsub.get_message(timeout=POLL_SECONDS)
            if message is not None:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self._handle(message)
        elif message["type"] in ("subscribe", "unsubscribe"):
            with self._confirmation:
                change = self._confirmed.add if message["type"] == "subscribe" else self._confirmed.discard
                change(channel_name(message))
                self._confirmation.notify_all()

    def _wait_for_server(self, stop: threading.Event) -> None:
        while not stop.is_set() and self.wanted:
            try:
                self._client().ping()
                logger.info("the subscriber's server is back")
                return
            except redis.RedisError as error:
                logger.warning(
                    "the subscriber's server is still away (%s), trying again in %s s",
                    error,
                    self._options.subscriber_retry_delay,
                )
                stop.wait(self._options.subscriber_retry_delay)


def channel_name(message: dict[str, Any]) -> str:
    """The channel of a message, whether or not the client decodes replies."""
    channel = message["channel"]
    return channel.decode() if isinstance(channel, bytes) else str(channel)
