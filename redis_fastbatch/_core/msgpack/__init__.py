"""Encoding and decoding of MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md)."""
