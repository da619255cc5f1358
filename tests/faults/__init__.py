"""Tests of what the client does when the connection or the server misbehaves."""
