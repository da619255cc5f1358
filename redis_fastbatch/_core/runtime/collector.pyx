# cython: language_level=3
"""Pauses the cyclic garbage collector.

This is in C because of signals. A handler may raise between any two steps of Python code: also after the collector
was switched off, and before the block begins that switches it on again. No Python code runs here.

The critical sections do nothing with the GIL.
"""

cimport cython

cdef extern from "Python.h":
    bint PyGC_Disable() noexcept
    bint PyGC_Enable() noexcept
    bint PyGC_IsEnabled() noexcept

EVERY = 200_000
"""The number of items after which the collector may run."""

cdef object LOCK = object()   # protects the three below
cdef Py_ssize_t holds = 0
cdef bint enabled_before = False
cdef Py_ssize_t process = 0   # how many forks led to this process


cdef class Hold:
    """A context in which the collector does not run. After the last one it is as before the first one.

    Args:
        enabled: if False, the context does nothing.
        every: made() calls turn() whenever it has counted that many items.
    """

    cdef readonly bint enabled
    cdef bint held
    cdef Py_ssize_t every
    cdef Py_ssize_t count
    cdef Py_ssize_t made_in

    def __init__(self, bint enabled=True, Py_ssize_t every=EVERY):
        self.enabled = enabled
        self.every = every

    def made(self, Py_ssize_t items):
        """Count items, and let the collector run after enough of them."""
        self.count += items
        if self.count >= self.every:
            self.count = 0
            self.turn()

    def turn(self):
        """Do nothing. A subclass lets the collector run."""

    def __enter__(self):
        global holds, enabled_before
        if self.enabled and not self.held:
            with cython.critical_section(LOCK):
                if holds == 0:
                    enabled_before = PyGC_IsEnabled()
                    PyGC_Disable()
                holds += 1
                self.held = True
                self.made_in = process
        return self

    def __exit__(self, kind, error, trace):
        self.end()

    def __dealloc__(self):
        # In case __exit__ was never reached.
        self.end()

    cdef void end(self) noexcept:
        global holds
        if not self.held:
            return
        with cython.critical_section(LOCK):
            if self.made_in == process:
                holds -= 1
                if holds == 0 and enabled_before:
                    PyGC_Enable()
            self.held = False


def holding():
    """Return how many contexts exist."""
    return holds


def was_enabled():
    """Return whether the collector was on before the first context."""
    return enabled_before


def forget():
    """End all contexts. Call it in a forked process, where their threads do not exist."""
    global LOCK, holds, process
    # Another thread may have held the old one when the process forked.
    LOCK = object()
    if holds and enabled_before:
        PyGC_Enable()
    holds = 0
    process += 1
