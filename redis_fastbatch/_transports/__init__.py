"""Move a flight's bytes over connections of redis-py."""
