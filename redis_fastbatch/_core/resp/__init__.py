"""RESP commands and replies (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
