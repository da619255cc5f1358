"""The part of RedisToolkit that listens to channels."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from redis_fastbatch.toolkit import _log
from redis_fastbatch.toolkit._subscriber import Subscriber, channel_name
from redis_fastbatch.toolkit.options import RedisOptions
from redis_fastbatch.toolkit.subscription_manager import SubscriptionManager

logger = _log.logger

Callback = Callable[[str, Any], object]


class ListeningToolkit:
    """Listens to channels in a thread, and calls a function for each message.

    Attributes:
        options: the settings.
    """

    options: RedisOptions
    _log_level: int
    _redis_client: Any

    @abstractmethod
    def _loads(self, raw: Any) -> Any:
        """Return the value of a message's data."""

    def _prepare_to_listen(self, channels: list[str], handler: Callback | None) -> None:
        """Keep the channels and their handler. Start the subscriber if both are given."""
        self._channels = channels
        self._message_handler = handler
        self._subscription_manager = self._make_subscription_manager()
        self._subscriber = Subscriber(
            lambda: self._redis_client,
            self._channels,
            self._process_message,
            self.options,
            f"RedisToolkit-Subscriber-{id(self)}",
        )
        if channels and handler:
            self._subscriber.start()

    def _make_subscription_manager(self) -> SubscriptionManager | None:
        options = self.options
        if not options.enable_dynamic_subscription:
            return None
        return SubscriptionManager(
            options.subscription_expire_minutes,
            options.subscription_check_interval,
            options.subscription_auto_cleanup,
            options.subscription_max_expired,
        )

    @property
    def subscription_manager(self) -> SubscriptionManager | None:
        """The manager of the dynamic subscriptions; None when they are off."""
        return self._subscription_manager

    def set_subscription_manager(self, manager: SubscriptionManager | None) -> None:
        """Stop the present manager and use another one; None turns dynamic subscriptions off."""
        if self._subscription_manager is not None:
            self._subscription_manager.stop()
        self._subscription_manager = manager

    def subscribe_dynamic(self, channel: str, callback: Callback) -> bool:
        """Listen to a channel from now on.

        Args:
            channel: the channel.
            callback: called as `callback(channel, value)` in the subscriber's thread.

        Returns:
            False when dynamic subscriptions are off.
        """
        manager = self._subscription_manager
        if manager is None:
            self._log_event(logging.ERROR, "dynamic subscriptions are off")
            return False
        manager.subscribe_dynamic(channel, callback)
        self._listen_to(channel)
        return True

    def resubscribe_channel(self, channel: str) -> bool:
        """Resume a subscription that has ended; return False if there is none or they are off."""
        manager = self._subscription_manager
        if manager is None:
            self._log_event(logging.ERROR, "dynamic subscriptions are off")
            return False
        if not manager.resubscribe(channel):
            return False
        self._listen_to(channel)
        return True

    def _listen_to(self, channel: str) -> None:
        if channel not in self._channels:
            self._channels.append(channel)
        self._subscriber.start()
        if not self._subscriber.wait_for(channel):
            self._log_event(logging.DEBUG, "the subscription to %r is not confirmed yet", channel)

    def unsubscribe_dynamic(self, channel: str) -> bool:
        """End a dynamic subscription; return False if there is none or they are off."""
        manager = self._subscription_manager
        if manager is None:
            self._log_event(logging.ERROR, "dynamic subscriptions are off")
            return False
        if not manager.unsubscribe_dynamic(channel):
            return False
        if channel in self._channels:
            self._channels.remove(channel)
        if not self._channels:
            self.stop_subscriber()
        return True

    def get_subscription_stats(self) -> dict[str, Any]:
        """Return the manager's statistics, with `enabled` and the number of channels as `static_channels`."""
        if self._subscription_manager is None:
            return {"enabled": False, "message": "dynamic subscriptions are off"}
        statistics = self._subscription_manager.get_statistics()
        return {**statistics, "enabled": True, "static_channels": len(self._channels)}

    def get_expired_channels(self) -> dict[str, dict[str, Any]]:
        """Return information about the dynamic subscriptions that ended."""
        manager = self._subscription_manager
        return {} if manager is None else manager.get_expired_channels()

    @property
    def sub_thread(self) -> threading.Thread | None:
        """The subscriber's thread; None before the first start."""
        return self._subscriber.thread

    @property
    def run_subscriber(self) -> bool:
        """Whether the subscriber's thread is to run; setting False ends it soon."""
        return self._subscriber.wanted

    @run_subscriber.setter
    def run_subscriber(self, wanted: bool) -> None:
        self._subscriber.wanted = wanted

    def stop_subscriber(self) -> None:
        """Stop the subscriber's thread; wait for it up to `subscriber_stop_timeout` seconds."""
        self._subscriber.stop()

    def _process_message(self, message: dict[str, Any]) -> None:
        channel = channel_name(message)
        try:
            value = self._loads(message["data"])
            if self._tells_of(self.options):
                logger.info("message on %s: %s", channel, _log.shortened(value, self.options.max_log_size))
            manager = self._subscription_manager
            handler = self._message_handler
            if manager is not None:
                manager.update_activity(channel)
                handler = manager.get_channel_callback(channel) or handler
            if handler is not None:
                handler(channel, value)
        except Exception as error:
            # One message that cannot be handled must not stop the subscriber.
            logger.error("a message on %s was not handled: %s: %s", channel, type(error).__name__, error)

    def _tells_of(self, opts: RedisOptions) -> bool:
        return opts.is_logger_info and self._log_level <= logging.INFO and logger.isEnabledFor(logging.INFO)

    def _log_event(self, level: int, message: str, *arguments: object) -> None:
        if level >= self._log_level:
            logger.log(level, message, *arguments)
