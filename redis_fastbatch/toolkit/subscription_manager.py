"""Dynamic subscriptions: their callbacks, and when they expire."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

logger = logging.getLogger("redis_fastbatch")

Callback = Callable[[str, Any], object]


@dataclass
class ChannelInfo:
    """A channel that is or was subscribed to.

    Attributes:
        name: the channel.
        callback: gets (channel, value) of each message.
        last_activity: Unix time of the last message.
        subscribe_time: Unix time of the first subscription.
        message_count: messages since then.
        is_active: False after it expired or was unsubscribed.
    """

    name: str
    callback: Callback
    last_activity: float = field(default_factory=time.time)
    subscribe_time: float = field(default_factory=time.time)
    message_count: int = 0
    is_active: bool = True

    def described(self) -> dict[str, Any]:
        """Return the channel's times and message count for a report."""
        return {
            "last_activity": _moment(self.last_activity),
            "subscribe_time": _moment(self.subscribe_time),
            "message_count": self.message_count,
        }


class SubscriptionManager:
    """Channels with their callbacks; a channel without messages expires. Thread-safe.

    Args:
        expire_minutes: a channel expires after this time without a message.
        check_interval: seconds between checks for such channels.
        auto_cleanup: keep only the latest `max_expired` of the ended channels.
        max_expired: how many ended channels are kept.
    """

    def __init__(
        self,
        expire_minutes: float = 5.0,
        check_interval: float = 30.0,
        auto_cleanup: bool = True,
        max_expired: int = 100,
    ) -> None:
        self.expire_minutes = expire_minutes
        self.check_interval = check_interval
        self.auto_cleanup = auto_cleanup
        self.max_expired = max_expired
        self._channels: dict[str, ChannelInfo] = {}
        self._expired_channels: dict[str, ChannelInfo] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._running = False
        self._total_subscribed = 0
        self._total_expired = 0

    def start(self) -> None:
        """Start to check for expired channels."""
        with self._lock:
            if not self._running:
                self._running = True
                self._schedule()

    def stop(self) -> None:
        """Stop to check for expired channels; the channels stay."""
        with self._lock:
            self._running = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def subscribe_dynamic(self, channel: str, callback: Callback) -> bool:
        """Set the callback of a channel, whether it is new, active or ended; return True."""
        with self._lock:
            info = self._channels.get(channel) or self._expired_channels.pop(channel, None)
            if info is None:
                info = ChannelInfo(channel, callback)
                self._total_subscribed += 1
            info.callback = callback
            self._activate(info)
            logger.debug("subscribed to %r", channel)
            return True

    def unsubscribe_dynamic(self, channel: str) -> bool:
        """End a channel; return False if it is not active."""
        with self._lock:
            if channel not in self._channels:
                logger.warning("unsubscribing from %r: there is no such subscription", channel)
                return False
            self._deactivate(channel)
            logger.debug("unsubscribed from %r", channel)
            return True

    def resubscribe(self, channel: str) -> bool:
        """Resume an ended channel with its callback; return False if there is none."""
        with self._lock:
            info = self._expired_channels.pop(channel, None)
            if info is None:
                logger.warning("resubscribing to %r: there is no subscription that ended", channel)
                return False
            self._activate(info)
            return True

    def update_activity(self, channel: str) -> None:
        """Record that a message came."""
        with self._lock:
            info = self._channels.get(channel)
            if info is not None:
                info.last_activity = time.time()
                info.message_count += 1

    def get_channel_callback(self, channel: str) -> Callback | None:
        """Return the callback of an active channel."""
        with self._lock:
            info = self._channels.get(channel)
            return None if info is None else info.callback

    def get_active_channels(self) -> dict[str, dict[str, Any]]:
        """Return information about the active channels; times are ISO 8601 in local time."""
        with self._lock:
            return {
                name: {**info.described(), "is_active": info.is_active} for name, info in self._channels.items()
            }

    def get_expired_channels(self) -> dict[str, dict[str, Any]]:
        """Return information about the ended channels; `expired_time` is the time of this call."""
        with self._lock:
            now = _moment(time.time())
            return {
                name: {**info.described(), "expired_time": now} for name, info in self._expired_channels.items()
            }

    def clear_expired(self) -> int:
        """Forget the ended channels; return how many there were."""
        with self._lock:
            count = len(self._expired_channels)
            self._expired_channels.clear()
            return count

    def get_statistics(self) -> dict[str, Any]:
        """Return the names and numbers of the channels, and the settings."""
        with self._lock:
            return {
                "active_channels": list(self._channels),
                "active_count": len(self._channels),
                "expired_channels": list(self._expired_channels),
                "expired_count": len(self._expired_channels),
                "total_subscribed": self._total_subscribed,
                "total_expired": self._total_expired,
                "total_messages": sum(info.message_count for info in self._channels.values()),
                "expire_minutes": self.expire_minutes,
                "check_interval": self.check_interval,
                "is_running": self._running,
            }

    def _activate(self, info: ChannelInfo) -> None:
        info.last_activity = time.time()
        info.is_active = True
        self._channels[info.name] = info
        self.start()

    def _deactivate(self, channel: str) -> None:
        info = self._channels.pop(channel)
        info.is_active = False
        self._expired_channels[channel] = info

    def _check_expired_channels(self) -> None:
        """Check for expired channels; runs in the timer's thread."""
        with self._lock:
            if not self._running:
                return
            oldest = time.time() - self.expire_minutes * 60
            for channel in [name for name, info in self._channels.items() if info.last_activity < oldest]:
                self._deactivate(channel)
                self._total_expired += 1
                logger.info("the subscription to %r has expired", channel)
            self._forget_oldest()
            if self._channels:
                self._schedule()
            else:
                # The next subscription starts the timer again.
                self._running = False

    def _forget_oldest(self) -> None:
        if self.auto_cleanup and len(self._expired_channels) > self.max_expired:
            latest = sorted(self._expired_channels.values(), key=lambda info: info.last_activity, reverse=True)
            self._expired_channels = {info.name: info for info in latest[: self.max_expired]}

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self.check_interval, self._check_expired_channels)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> SubscriptionManager:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        with self._lock:
            return (
                f"SubscriptionManager(active={len(self._channels)}, expired={len(self._expired_channels)}, "
                f"running={self._running})"
            )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat()
