# cython: language_level=3
"""Sends buffers over sockets and receives into buffers, with few system calls and without the GIL.

For sockets that nothing lies above, such as TLS. Windows does not have these functions: see send(2), recv(2), poll(2).
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EBADF, EINTR, errno

from redis_fastbatch._core.runtime.buffer cimport ReceiveBuffer

cdef extern from "sys/socket.h" nogil:
    enum: MSG_DONTWAIT
    Py_ssize_t c_send "send"(int fd, const void* data, size_t size, int flags)
    Py_ssize_t c_recv "recv"(int fd, void* data, size_t size, int flags)

cdef extern from "poll.h" nogil:
    enum: POLLIN
    enum: POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd* descriptors, unsigned long count, int milliseconds)


cdef class PlainSocket:
    """A socket that is used through its file descriptor.

    At first its methods wait for the socket's timeout at most, each time. After stop_blocking() they do not wait.

    Args:
        sock: the socket. Its own state stays as it is.
    """

    cdef object sock
    cdef int milliseconds    # how long to wait; -1 for no limit

    def __init__(self, sock):
        timeout = sock.gettimeout()
        self.sock = sock
        self.milliseconds = -1 if timeout is None else <int>min(timeout * 1000 + 0.5, 0x7FFFFFFF)

    def stop_blocking(self):
        """From now on, do not wait."""
        self.milliseconds = 0

    def send_all(self, message):
        """Send a whole message: anything with the buffer protocol.

        Raises:
            TimeoutError: the socket accepts nothing for too long.
            OSError: the connection is lost.
        """
        cdef Py_ssize_t size = len(message), sent = 0
        while sent < size:
            sent += self.send_some(message, sent)
            if sent < size:
                wait(descriptor(self.sock), POLLOUT, self.milliseconds)

    def send_some(self, message, Py_ssize_t start):
        """Send what the socket accepts at once of a message, from byte `start` on. Return how many bytes."""
        cdef int fd = descriptor(self.sock)
        cdef Py_ssize_t sent
        cdef Py_buffer view
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            if start < 0 or start > view.len:
                raise ValueError(f"expected a start from 0 to {view.len}, the size of the message, got {start}")
            while True:
                with nogil:
                    sent = c_send(fd, <const char*>view.buf + start, view.len - start, MSG_DONTWAIT)
                if sent >= 0:
                    return sent
                if errno == EAGAIN:
                    return 0
                check_interrupted()
        finally:
            PyBuffer_Release(&view)

    def receive(self, ReceiveBuffer buffer):
        """Receive bytes into a buffer.

        Returns:
            How many bytes; 0 if the other side has closed the connection; -1 if none have arrived, and this is not
            to wait for them.

        Raises:
            TimeoutError: none have arrived for too long.
            OSError: the connection is lost.
        """
        cdef int fd = descriptor(self.sock)
        cdef Py_ssize_t size
        buffer.make_space()
        buffer.exports += 1
        try:
            if self.milliseconds:
                wait(fd, POLLIN, self.milliseconds)
            while True:
                with nogil:
                    size = c_recv(fd, buffer.data + buffer.end, buffer.capacity - buffer.end, MSG_DONTWAIT)
                if size >= 0:
                    buffer.end += size
                    return size
                if errno != EAGAIN:
                    check_interrupted()
                elif self.milliseconds == 0:
                    return -1
                else:
                    wait(fd, POLLIN, self.milliseconds)
        finally:
            buffer.exports -= 1


def has_arrived(sock):
    """Return whether a socket can be read at once: bytes have arrived, or the connection is closed or lost."""
    cdef pollfd one
    cdef int ready
    one.fd, one.events, one.revents = descriptor(sock), POLLIN, 0
    ready = c_poll(&one, 1, 0)
    if ready < 0:
        check_interrupted()
    return ready != 0


cdef int descriptor(sock) except -1:
    """Return the file descriptor of a socket that is open."""
    cdef int fd = sock.fileno()
    if fd < 0:
        # It was closed, perhaps by another thread.
        raise OSError(EBADF, os.strerror(EBADF))
    return fd


cdef int wait(int fd, short event, int milliseconds) except -1:
    """Wait until a socket can be read or written. An error or a closed connection shows when that is done."""
    cdef pollfd one
    cdef int ready
    while True:
        one.fd, one.events, one.revents = fd, event, 0
        with nogil:
            ready = c_poll(&one, 1, milliseconds)
        if ready > 0:
            return 0
        if ready == 0:
            raise TimeoutError("timed out")
        check_interrupted()


cdef int check_interrupted() except -1:
    """After a failed system call, run signal handlers if a signal has interrupted it; else raise what it failed of."""
    if errno != EINTR:
        PyErr_SetFromErrno(OSError)
    return PyErr_CheckSignals()
