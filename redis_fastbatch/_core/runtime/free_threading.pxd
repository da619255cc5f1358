# cython: language_level=3
"""Whether Python is the free-threaded build. With the GIL the compiler drops what depends on this constant."""

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
    #define FASTBATCH_FREE_THREADED 1
    #else
    #define FASTBATCH_FREE_THREADED 0
    #endif
    """
    bint FREE_THREADED "FASTBATCH_FREE_THREADED"
