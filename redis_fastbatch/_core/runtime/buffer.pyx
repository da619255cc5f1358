# cython: language_level=3
"""The output buffer that all writers use, and the receive buffer. Both grow as needed.

Their memory is of PyMem_Raw*, so that they can grow without the GIL. They export it by the buffer protocol, and it
does not move while it is exported.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.string cimport memcpy, memmove

cdef Py_ssize_t FIRST_CAPACITY = 4096
cdef Py_ssize_t MAX_CAPACITY = (<Py_ssize_t>1) << 40
cdef Py_ssize_t RECEIVE_CAPACITY = 128 * 1024


cdef class OutputBuffer:
    """The bytes of one message. `memoryview(buffer)` is the message, len() its size in bytes."""

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __len__(self):
        return self.end - self.start

    def __getbuffer__(self, Py_buffer* view, int flags):
        # The callers of PyBuffer_FillInfo would take NULL for "no buffer".
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
                raise BufferError("the buffer cannot grow while it is exported: it is being sent")
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
        """Empty the buffer, and leave headroom. `headroom` bytes must be allocated."""
        self.start = headroom
        self.end = headroom


    cdef int shrink(self, Py_ssize_t capacity) except -1:
        """Free the memory beyond `capacity`, unless it is in use."""
        cdef char* moved
        if self.capacity <= capacity or self.end > capacity or self.exports:
            return 0
        moved = <char*>PyMem_RawRealloc(self.data, capacity)
        if moved != NULL:
            self.data = moved
            self.capacity = capacity
        return 0


cdef class ReceiveBuffer:
    """Received bytes. Receive into free_space(), then say with received() how many bytes have arrived."""

    def __cinit__(self):
        self.data = <char*>PyMem_RawMalloc(RECEIVE_CAPACITY)
        if self.data == NULL:
            raise MemoryError()
        self.capacity = RECEIVE_CAPACITY

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __len__(self):
        """The number of bytes that were received and not read."""
        return self.end - self.position

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data + self.end, self.capacity - self.end, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.exports -= 1

    cdef int make_room(self, Py_ssize_t size) except -1:
        """Move the unread bytes to the front, and make sure that `size` bytes after them are free."""
        cdef Py_ssize_t unread = self.end - self.position
        cdef Py_ssize_t capacity = self.capacity
        cdef char* moved
        if self.exports:
            raise BufferError("the receive buffer cannot move while it is exported: it is being filled")
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

    cdef int shrink(self, Py_ssize_t capacity) except -1:
        """Free the memory beyond `capacity`, unless it is in use."""
        cdef char* moved
        if self.capacity <= capacity or self.end > capacity or self.exports:
            return 0
        moved = <char*>PyMem_RawRealloc(self.data, capacity)
        if moved != NULL:
            self.data = moved
            self.capacity = capacity
        return 0

    cdef int make_space(self) except -1:
        """Make sure that half of the buffer is free."""
        if self.position == self.end:
            self.position = 0
            self.end = 0
        if self.capacity - self.end < self.capacity // 2:
            self.make_room(self.capacity // 2)
        return 0

    def free_space(self):
        """Return a writable memoryview of the space after the received bytes.

        It grows with the bytes that have arrived, never with the length that a reply's header announces.
        """
        self.make_space()
        return memoryview(self)

    def received(self, Py_ssize_t size):
        """Note that `size` bytes were put at the front of free_space()."""
        if size < 0 or size > self.capacity - self.end:
            raise ValueError(f"received() takes 0 to {self.capacity - self.end} bytes, the free space, got {size}")
        self.end += size

    def feed(self, received):
        """Append bytes that were received elsewhere."""
        cdef Py_buffer view
        # Not a typed memoryview: Cython's code for those adds a hundred kilobytes to each module.
        PyObject_GetBuffer(received, &view, PyBUF_SIMPLE)
        try:
            if self.capacity - self.end < view.len:
                self.make_room(view.len)
            if view.len:
                memcpy(self.data + self.end, view.buf, view.len)
            self.received(view.len)
        finally:
            PyBuffer_Release(&view)
