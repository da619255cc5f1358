"""The value format of redis-toolkit 0.4.0."""
