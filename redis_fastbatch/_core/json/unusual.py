"""The exception with which the compiled reader and writer of JSON leave a value to the standard library."""


class Unusual(Exception):
    """The compiled code does not handle this value or these bytes."""
