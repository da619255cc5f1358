"""Buffers, text, and the garbage collector: what every part of the core uses."""
