# cython: language_level=3
"""Holds back the cyclic garbage collector.

In C because of signals: what a handler raises may come between any two steps of Python code, and so between the
collector's being switched off and the beginning of the block that is to switch it on again. No Python code runs here.
"""

cdef extern from "Python.h":
    bint PyGC_Disable() noexcept
    bint PyGC_Enable() noexcept
    bint PyGC_IsEnabled() noexcept

cdef Py_ssize_t holds = 0
cdef bint enabled_before = False
cdef Py_ssize_t process = 0   # counts the forks that led here


cdef class Hold:
    """A context in which the collector rests; it is left as it was found once the last of them has ended.

    Args:
        enabled: False makes it do nothing.
    """

    cdef bint enabled
    cdef bint held
    cdef Py_ssize_t made_in

    def __init__(self, bint enabled=True):
        self.enabled = enabled

    def __enter__(self):
        global holds, enabled_before
        if self.enabled and not self.held:
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
        # Where __exit__ was never reached.
        self.end()

    cdef void end(self) noexcept:
        global holds
        if self.held and self.made_in == process:
            holds -= 1
            if holds == 0 and enabled_before:
                PyGC_Enable()
        self.held = False


def holding():
    """How many contexts there are now."""
    return holds


def was_enabled():
    """Whether the collector was on before the first of them."""
    return enabled_before


def forget():
    """Ends all of them: to be called in a process that was forked, where their threads do not exist."""
    global holds, process
    if holds and enabled_before:
        PyGC_Enable()
    holds = 0
    process += 1
