"""The drop-in's settings: redis-toolkit's fields and defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
CERTIFICATE_CHECKS = ("none", "optional", "required")


@dataclass
class RedisOptions:
    """The settings of a RedisToolkit.

    Attributes:
        is_logger_info: log each operation at INFO.
        max_log_size: characters of a value that a log line shows.
        log_level: the lowest level that is logged: DEBUG, INFO, WARNING or ERROR.
        log_path: a file to log to as well; it rotates daily and seven are kept.
        subscriber_retry_delay: seconds between attempts to reach a lost server.
        subscriber_stop_timeout: seconds to wait for the subscriber's thread to end.
        max_value_size: the largest serialized value, in bytes; a batch may have ten times as many.
        max_key_length: the longest key, in characters.
        enable_validation: whether these two limits apply.
        use_connection_pool: share one pool with all toolkits of the same configuration.
        max_connections: limit of a pool that is made for this toolkit; None for no limit.
        retry_attempts: calls of an operation, at most, when the connection fails.
        retry_delay: seconds before the second attempt.
        retry_backoff: factor of the delay after each attempt.
        enable_dynamic_subscription: whether subscribe_dynamic() works.
        subscription_expire_minutes: a dynamic subscription without messages ends after this time.
        subscription_check_interval: seconds between checks for such subscriptions.
        subscription_auto_cleanup: forget the oldest ended subscriptions.
        subscription_max_expired: how many ended subscriptions are kept.
    """

    is_logger_info: bool = True
    max_log_size: int = 256
    log_level: str = "INFO"
    log_path: str | None = None
    subscriber_retry_delay: int = 5
    subscriber_stop_timeout: int = 5
    max_value_size: int = 10 * 1024 * 1024
    max_key_length: int = 512
    enable_validation: bool = True
    use_connection_pool: bool = True
    max_connections: int | None = None
    retry_attempts: int = 3
    retry_delay: float = 0.1
    retry_backoff: float = 2.0
    enable_dynamic_subscription: bool = True
    subscription_expire_minutes: float = 5.0
    subscription_check_interval: float = 30.0
    subscription_auto_cleanup: bool = True
    subscription_max_expired: int = 100

    def validate(self) -> None:
        """Check the settings. It is not called automatically.

        Raises:
            ValueError: a setting is out of range.
            TypeError: a setting that must be a number is not one.
        """
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"log_level must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}")
        for name in (
            "max_log_size",
            "subscriber_retry_delay",
            "subscriber_stop_timeout",
            "max_value_size",
            "max_key_length",
            "retry_backoff",
        ):
            _at_least(self, name, 1)
        if self.max_connections is not None:
            _at_least(self, "max_connections", 1)
        for name in ("retry_attempts", "retry_delay"):
            _at_least(self, name, 0)
        if self.log_path is not None:
            folder = os.path.dirname(self.log_path)
            if folder and not os.path.exists(folder):
                raise ValueError(f"log_path: there is no directory {folder!r}")


@dataclass
class RedisConnectionConfig:
    """How to connect to a server; fields without a description are arguments of redis.Redis.

    Attributes:
        connection_timeout: redis.Redis's socket_connect_timeout.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    password: str | None = None
    username: str | None = None
    encoding: str = "utf-8"
    socket_keepalive: bool = True
    socket_keepalive_options: dict[Any, Any] | None = None
    connection_timeout: float | None = None
    socket_timeout: float | None = None
    retry_on_timeout: bool = False
    retry_on_error: list[type[Exception]] | None = None
    health_check_interval: int = 30
    ssl: bool = False
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: str = "required"

    def to_redis_kwargs(self) -> dict[str, Any]:
        """Return the arguments for redis.Redis(), without settings that are not set."""
        kwargs: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "db": self.db,
            "encoding": self.encoding,
            # The codec decodes values from bytes.
            "decode_responses": False,
            "socket_keepalive": self.socket_keepalive,
            "retry_on_timeout": self.retry_on_timeout,
            "health_check_interval": self.health_check_interval,
        }
        for name in ("password", "username", "socket_keepalive_options"):
            if getattr(self, name):
                kwargs[name] = getattr(self, name)
        for name, ours in (
            ("socket_connect_timeout", self.connection_timeout),
            ("socket_timeout", self.socket_timeout),
            ("retry_on_error", self.retry_on_error),
        ):
            if ours is not None:
                kwargs[name] = ours
        if self.ssl:
            kwargs["ssl"] = True
            for name in ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs"):
                if getattr(self, name):
                    kwargs[name] = getattr(self, name)
            kwargs["ssl_cert_reqs"] = self.ssl_cert_reqs
        return kwargs

    def validate(self) -> None:
        """Check the settings. It is not called automatically.

        Raises:
            ValueError: a setting is out of range.
            TypeError: a setting that must be a number is not one.
        """
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port must be in 1..65535, not {self.port}")
        for name in ("db", "health_check_interval"):
            _at_least(self, name, 0)
        for name in ("connection_timeout", "socket_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and seconds <= 0:
                raise ValueError(f"{name} must be more than 0, not {seconds}")
        if self.ssl and self.ssl_cert_reqs not in CERTIFICATE_CHECKS:
            raise ValueError(
                f"ssl_cert_reqs must be one of {', '.join(CERTIFICATE_CHECKS)}, not {self.ssl_cert_reqs!r}"
            )


def _at_least(settings: Any, name: str, least: int) -> None:
    value = getattr(settings, name)
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


DEFAULT_OPTIONS = RedisOptions()
DEFAULT_CONNECTION_CONFIG = RedisConnectionConfig()
