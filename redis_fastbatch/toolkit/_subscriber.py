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
"""Longest delay, in seconds, until an added or removed channel is subscribed or unsubscribed."""

CONFIRM_SECONDS = 1.0
"""Longest wait, in seconds, for the server to confirm a subscription."""


class Subscriber:
    """A thread that listens to a list of channels, which may change at any time.

    Args:
        client: returns the client to use.
        channels: the channels; the caller's own list, which is read again and again.
        handle: called with each message, in the subscriber's thread.
        options: the delays and timeouts.
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
        """Whether the thread runs."""
        return self.thread is not None and self.thread.is_alive()

    def start(self) -> None:
        """Start the thread unless it already runs."""
        with self._lock:
            if self.alive and not self._stop.is_set():
                return
            self.wanted = True
            # Each thread has its own stop event, so that a thread that is slow to end cannot resume.
            self._stop = threading.Event()
            with self._confirmation:
                self._confirmed.clear()
            self.thread = threading.Thread(target=self._run, args=(self._stop,), daemon=True, name=self._name)
            self.thread.start()

    def stop(self) -> None:
        """Stop the thread; wait for it up to `subscriber_stop_timeout` seconds."""
        self.wanted = False
        self._stop.set()
        thread = self.thread
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            return
        thread.join(self._options.subscriber_stop_timeout)
        if thread.is_alive():
            logger.warning("the subscriber has not ended within subscriber_stop_timeout")

    def wait_for(self, channel: str) -> bool:
        """Wait briefly for the server to confirm a subscription; return whether it has."""
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
        """Return whether the thread is to continue; after False, start() makes a new thread."""
        with self._lock:
            if not self.wanted or not self._channels:
                stop.set()
            return not stop.is_set()

    def _listen(self, pubsub: Any, stop: threading.Event) -> None:
        subscribed: set[str] = set()
        while not stop.is_set() and self.wanted:
            # Under the lock, so that a caller that adds a channel again right now waits for a new confirmation.
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
    """Return the channel of a message as str, whether or not the client decodes replies."""
    channel = message["channel"]
    return channel.decode() if isinstance(channel, bytes) else str(channel)
