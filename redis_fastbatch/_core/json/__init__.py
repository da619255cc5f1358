"""JSON: what the codec `json` and redis-toolkit's format have in common."""
