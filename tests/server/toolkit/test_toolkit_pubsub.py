"""RedisToolkit: publishing, subscriptions, and the thread of the subscriber."""

from __future__ import annotations

import time
from typing import Any

import redis

from redis_fastbatch.toolkit import (
    RedisOptions,
    RedisToolkit,
)
from servers import wait_until


class TestPubSub:
    def test_a_handler_gets_messages_of_all_channels(self, client: redis.Redis) -> None:
        got: list[tuple[str, Any]] = []
        with RedisToolkit(redis=client, channels=["a", "b"], message_handler=lambda *m: got.append(m)) as toolkit:
            _wait_for_listener(client, "b")
            toolkit.publisher("a", {"x": (1, b"2")})
            toolkit.publisher("b", "text")
            client.publish("b", "raw")
            _wait(lambda: len(got) == 3)
            thread = toolkit.sub_thread
        assert got == [("a", {"x": [1, b"2"]}), ("b", "text"), ("b", "raw")]
        assert thread is not None
        assert not thread.is_alive()

    def test_channels_can_be_added_and_removed(self, client: redis.Redis) -> None:
        got: list[Any] = []
        with RedisToolkit(redis=client) as toolkit:
            assert toolkit.subscribe_dynamic("a", lambda channel, value: got.append((channel, value)))
            toolkit.publisher("a", 5)
            _wait(lambda: got == [("a", 5)])
            thread = toolkit.sub_thread
            # The thread runs, and neither channel misses a message.
            assert toolkit.subscribe_dynamic("b", lambda channel, value: got.append((channel, value * 2)))
            assert toolkit.sub_thread is thread
            toolkit.publisher("a", 6)
            toolkit.publisher("b", 7)
            _wait(lambda: got[1:] == [("a", 6), ("b", 14)])
            stats = toolkit.get_subscription_stats()
            assert (stats["enabled"], stats["static_channels"], stats["total_messages"]) == (True, 2, 3)
            assert toolkit.unsubscribe_dynamic("a") is True
            assert toolkit.unsubscribe_dynamic("a") is False
            _wait(lambda: dict(client.pubsub_numsub("a"))[b"a"] == 0)
            assert list(toolkit.get_expired_channels()) == ["a"]
            assert toolkit.resubscribe_channel("a") is True
            assert toolkit.resubscribe_channel("never") is False
            toolkit.publisher("a", 8)
            _wait(lambda: got[-1] == ("a", 8))
            toolkit.unsubscribe_dynamic("a")
            toolkit.unsubscribe_dynamic("b")
            _wait(lambda: toolkit.sub_thread is not None and not toolkit.sub_thread.is_alive())
            toolkit.subscribe_dynamic("c", lambda channel, value: got.append(value))
            toolkit.publisher("c", "again")
            _wait(lambda: got[-1] == "again")

    def test_a_channel_that_is_added_again_misses_no_message(self, client: redis.Redis) -> None:
        got: list[int] = []
        with RedisToolkit(redis=client) as toolkit:
            toolkit.subscribe_dynamic("other", print)
            for number in range(2, 30):
                toolkit.subscribe_dynamic("a", lambda channel, value: got.append(value))
                toolkit.publisher("a", number)
                _wait(lambda number=number: got[-1:] == [number])
                # Sometimes the subscriber has ended before the next subscription, sometimes not.
                toolkit.unsubscribe_dynamic("a")
                time.sleep(number % 4 * 0.04)
        assert got == list(range(2, 30))

    def test_a_callback_may_subscribe_and_fail(self, client: redis.Redis) -> None:
        got: list[Any] = []

        def first(channel: str, value: Any) -> None:
            toolkit.subscribe_dynamic("second", lambda channel, value: got.append(value))
            raise RuntimeError("the listener continues")

        with RedisToolkit(redis=client) as toolkit:
            toolkit.subscribe_dynamic("first", first)
            toolkit.publisher("first", 1)
            _wait_for_listener(client, "second")
            toolkit.publisher("second", "received")
            _wait(lambda: got == ["received"])

    def test_a_subscription_that_expires_falls_back_to_the_handler(self, client: redis.Redis) -> None:
        got: list[str] = []
        with RedisToolkit(
            redis=client,
            options=RedisOptions(subscription_check_interval=0.05),
            message_handler=lambda channel, value: got.append("handler"),
        ) as toolkit:
            toolkit.subscribe_dynamic("a", lambda channel, value: got.append("callback"))
            toolkit.publisher("a", 1)
            _wait(lambda: got == ["callback"])
            # Only now, because on a busy machine it could expire before its message arrives.
            toolkit.subscription_manager.expire_minutes = 0.1 / 60
            _wait(lambda: "a" in toolkit.get_expired_channels())
            toolkit.publisher("a", 1)
            _wait(lambda: got == ["callback", "handler"])

    def test_a_lost_connection_is_subscribed_again(self, client: redis.Redis) -> None:
        got: list[Any] = []
        options = RedisOptions(subscriber_retry_delay=1)
        with RedisToolkit(redis=client, options=options) as toolkit:
            toolkit.subscribe_dynamic("a", lambda channel, value: got.append(value))
            client.client_kill_filter(_type="pubsub")
            _wait_for_listener(client, "a")
            toolkit.publisher("a", 5)
            _wait(lambda: got == [5])

    def test_dynamic_subscriptions_can_be_turned_off(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, options=RedisOptions(enable_dynamic_subscription=False))
        assert toolkit.subscription_manager is None
        assert toolkit.subscribe_dynamic("a", print) is False
        assert toolkit.unsubscribe_dynamic("a") is False
        assert toolkit.resubscribe_channel("a") is False
        assert toolkit.get_expired_channels() == {}
        assert toolkit.get_subscription_stats()["enabled"] is False

    def test_the_subscription_manager_can_be_replaced(self, client: redis.Redis) -> None:
        from redis_fastbatch.toolkit.subscription_manager import SubscriptionManager

        with RedisToolkit(redis=client) as toolkit:
            manager = SubscriptionManager(expire_minutes=1)
            toolkit.set_subscription_manager(manager)
            toolkit.subscribe_dynamic("a", print)
            assert list(manager.get_active_channels()) == ["a"]
            toolkit.set_subscription_manager(None)
            assert toolkit.subscribe_dynamic("b", print) is False

    def test_run_subscriber_ends_the_thread(self, client: redis.Redis) -> None:
        toolkit = RedisToolkit(redis=client, channels=["a"], message_handler=print)
        assert toolkit.run_subscriber is True
        toolkit.run_subscriber = False
        _wait(lambda: toolkit.sub_thread is not None and not toolkit.sub_thread.is_alive())


def _wait(condition: Any) -> None:
    wait_until(condition, "the condition of the test", 10)


def _wait_for_listener(client: redis.Redis, channel: str) -> None:
    _wait(lambda: dict(client.pubsub_numsub(channel))[channel.encode()] == 1)
    time.sleep(0.01)
