"""RedisToolkit: messages in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import redis

from redis_fastbatch.toolkit import (
    RedisOptions,
    RedisToolkit,
)


class TestLogging:
    def test_each_operation_is_logged(self, client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "redis_fastbatch")
        toolkit = RedisToolkit(redis=client, options=RedisOptions(max_log_size=20))
        toolkit.setter("a", {"field": "x" * 100})
        toolkit.getter("a")
        toolkit.setter("b", b"\xff" * 50)
        toolkit.setter("c", list(range(100)))
        toolkit.batch_set({"d": 1})
        toolkit.batch_get(["d"])
        toolkit.deleter("d")
        toolkit.batch_delete(["a"])
        toolkit.publisher("channel", "x")
        text = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
        assert [line.split()[0].rstrip(":") for line in text] == [
            *("set", "get", "set", "set", "batch_set", "batch_get", "delete", "batch_delete", "publish")
        ]
        assert all(len(line) < 80 for line in text)

    @pytest.mark.parametrize(
        "options", [RedisOptions(is_logger_info=False), RedisOptions(log_level="WARNING")], ids=["off", "level"]
    )
    def test_logging_can_be_turned_off(
        self, client: redis.Redis, options: RedisOptions, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "redis_fastbatch")
        toolkit = RedisToolkit(redis=client, options=options)
        toolkit.setter("a", 1)
        toolkit.batch_set({"a": 1})
        toolkit.batch_get(["a"])
        assert [record for record in caplog.records if record.levelno == logging.INFO] == []

    def test_values_are_not_formatted_if_they_are_not_logged(self, client: redis.Redis) -> None:
        class Costly(dict):  # type: ignore[type-arg]
            def __str__(self) -> str:
                raise AssertionError("formatted")

            __repr__ = __str__

        RedisToolkit(redis=client).setter("a", Costly(a=1))

    def test_messages_can_go_to_a_file(self, client: redis.Redis, tmp_path: Path) -> None:
        path = tmp_path / "toolkit.log"
        logger = logging.getLogger("redis_fastbatch")
        level, handlers = logger.level, logger.handlers[:]
        try:
            options = RedisOptions(log_path=str(path))
            for _ in range(2):
                RedisToolkit(redis=client, options=options).setter("a", "in the log")
        finally:
            logger.setLevel(level)
            for handler in set(logger.handlers) - set(handlers):
                logger.removeHandler(handler)
                handler.close()
        assert path.read_text().count("in the log") == 2

    def test_an_unknown_log_level_is_logged(self, client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
        for level in ("LOUD", None):
            with caplog.at_level(logging.INFO, logger="redis_fastbatch"):
                RedisToolkit(redis=client, options=RedisOptions(log_level=level)).setter("a", 1)  # type: ignore[arg-type]
            assert caplog.messages == [f"there is no log level {level!r}: INFO holds", "set a: 1"]
            caplog.clear()
        for known in ("SUCCESS", logging.INFO):
            RedisToolkit(redis=client, options=RedisOptions(log_level=known))  # type: ignore[arg-type]
