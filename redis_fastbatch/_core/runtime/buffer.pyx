# cython: language_level=3
"""The growable output buffer that all writers share, and the receive buffer.

Both own their memory (PyMem_Raw*, so that they may grow without the GIL) and lend it through the
buffer protocol; while it is lent it does not move.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.string cimport memcpy, memmove

cdef Py_ssize_t FIRST_CAPACITY = 4096
cdef Py_ssize_t MAX_CAPACITY = (<Py_ssize_t>1) << 40
cdef Py_ssize_t RECEIVE_CAPACITY = 128 * 1024


cdef class OutputBuffer:
    """Growable bytes for one message. `memoryview(buffer)` is the message; len() its size in bytes."""

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __len__(self):
        return self.end - self.start

    def __getbuffer__(self, Py_buffer* view, int flags):
        # A NULL pointer would read as "no buffer" to PyBuffer_FillInfo's callers.
        if self.data == NULL:
            self.grow(1)
        PyBuffer_FillInfo(view, self, self.data + self.start, self.end - self.start, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.exports -= 1

    cdef int grow(self, Py_ssize_t extra) except -1 nogil:
        cdef Py_ssize_t capacity = self.capacity
        cdef char* moved
        if self.exports:
            with gil:
                raise BufferError("the buffer is being sent: it cannot grow")
        if extra < 0 or extra > MAX_CAPACITY - self.end:
            with gil:
                raise MemoryError()
        if capacity < FIRST_CAPACITY:
            capacity = FIRST_CAPACITY
        while capacity - self.end < extra:
            capacity *= 2
        moved = <char*>PyMem_RawRealloc(self.data, capacity)
        if moved == NULL:
            with gil:
                raise MemoryError()
        self.data = moved
        self.capacity = capacity
        return 0

    cdef int append(self, const char* source, Py_ssize_t size) except -1 nogil:
        reserve(self, size)
        memcpy(self.data + self.end, source, size)
        self.end += size
        return 0

    cdef void reset(self, Py_ssize_t headroom) noexcept nogil:
        """Empties the buffer. The caller has seen to it that `headroom` bytes are allocated."""
        self.start = headroom
        self.end = headroom


    cdef int shrink(self, Py_ssize_t capacity) except -1:
        """Gives back what is allocated beyond `capacity`, where that much is not in use."""
        cdef char* moved
        if self.capacity <= capacity or self.end > capacity or self.exports:
            return 0
        moved = <char*>PyMem_RawRealloc(self.data, capacity)
        if moved != NULL:
            self.data = moved
            self.capacity = capacity
        return 0


cdef class ReceiveBuffer:
    """Bytes off the wire. `free_space()` is where to receive into, `received(n)` says how much came."""

    def __cinit__(self):
        self.data = <char*>PyMem_RawMalloc(RECEIVE_CAPACITY)
        if self.data == NULL:
            raise MemoryError()
        self.capacity = RECEIVE_CAPACITY

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __len__(self):
        """Bytes received and not yet read."""
        return self.end - self.position

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data + self.end, self.capacity - self.end, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.exports -= 1

    cdef int make_room(self, Py_ssize_t size) except -1:
        """Moves what is unread to the front and sees to `size` free bytes behind it."""
        cdef Py_ssize_t unread = self.end - self.position
        cdef Py_ssize_t capacity = self.capacity
        cdef char* moved
        if self.exports:
            raise BufferError("the receive buffer is being filled: it cannot move")
        if self.position:
            memmove(self.data, self.data + self.position, unread)
            self.position = 0
            self.end = unread
        if size < 0 or size > MAX_CAPACITY - unread:
            raise MemoryError()
        while capacity - unread < size:
            capacity *= 2
        if capacity != self.capacity:
            moved = <char*>PyMem_RawRealloc(self.data, capacity)
            if moved == NULL:
                raise MemoryError()
            self.data = moved
            self.capacity = capacity
        return 0

    def free_space(self):
        """A writable memoryview behind the bytes received so far. It grows with what has arrived, never
        with what a reply's header announces."""
        if self.position == self.end:
            self.position = 0
            self.end = 0
        if self.capacity - self.end < self.capacity // 2:
            self.make_room(self.capacity // 2)
        return memoryview(self)

    def received(self, Py_ssize_t size):
        """Says that `size` bytes were put at the front of free_space()."""
        if size < 0 or size > self.capacity - self.end:
            raise ValueError(f"cannot have received {size} bytes into {self.capacity - self.end}")
        self.end += size

    def feed(self, received):
        """Appends bytes that somebody else took off the wire."""
        cdef Py_buffer view
        # Not a typed memoryview: Cython's code for these is a hundred kilobytes in each module.
        PyObject_GetBuffer(received, &view, PyBUF_SIMPLE)
        try:
            if self.capacity - self.end < view.len:
                self.make_room(view.len)
            if view.len:
                memcpy(self.data + self.end, view.buf, view.len)
            self.received(view.len)
        finally:
            PyBuffer_Release(&view)
