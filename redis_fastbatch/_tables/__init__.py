"""Arrow tables to Redis and back."""
