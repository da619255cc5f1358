"""Tests with lost connections and servers that answer wrongly, late or not at all."""
