# cython: language_level=3
"""How deep the values around a hook's call are nested. Each module that uses it has a count of its own."""

cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) int fastbatch_outer_depth = 0;
    #else
    static __thread int fastbatch_outer_depth = 0;
    #endif
    """
    # Of this thread: what a hook encodes or decodes stands on the same stack. It is added to and taken from, never
    # put back as it was, so that greenlets that take turns inside hooks leave it right.
    int outer_depth "fastbatch_outer_depth"
