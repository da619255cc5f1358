"""Batches over a Redis Cluster: a flight for each node."""
