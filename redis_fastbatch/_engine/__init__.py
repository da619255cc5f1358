"""Batches as state machines, without input or output."""
