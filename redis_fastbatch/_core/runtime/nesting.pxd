# cython: language_level=3
"""Counts how deeply nested the values around a hook's call are. Each module that cimports this has its own count."""

cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) int fastbatch_outer_depth = 0;
    #else
    static __thread int fastbatch_outer_depth = 0;
    #endif
    """
    # A count for each thread, because what a hook encodes or decodes uses the same stack. It is increased and
    # decreased, never restored from a copy, so that it stays right when greenlets switch inside hooks.
    int outer_depth "fastbatch_outer_depth"
