# cython: language_level=3
"""Encodes items into commands for the nodes of a cluster.

Each item is a command here: the keys of one MSET would have to share a slot. So every item has its own reply, and
a slot that has moved concerns only its own items.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_SetDefault
from cpython.unicode cimport PyUnicode_CheckExact

from libc.stdint cimport int64_t

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.resp.command_chunks cimport CommandChunk
from redis_fastbatch._core.resp.commands cimport CommandEncoder, as_command, slot_of_command
from redis_fastbatch._core.resp.encoder cimport BatchWriter, Chunk, Command, ItemSource, Place, key_bytes
from redis_fastbatch._core.resp.expiry cimport ItemExpiry
from redis_fastbatch._core.resp.slots cimport SLOTS, slot_of
from redis_fastbatch._core.runtime.utf8 cimport PyUnicode_DATA, PyUnicode_GET_LENGTH, PyUnicode_IS_COMPACT_ASCII

from redis_fastbatch._core.resp.command_chunks import ANY_COMMAND, command_failure
from redis_fastbatch._core.resp.encoder import SourcePending

cdef bytes ASKING = b"*1\r\n$6\r\nASKING\r\n"
cdef Py_ssize_t SPARE_CHUNKS = 64
cdef Py_ssize_t SPARE_BYTES = 128 * 1024


cdef class AskingCommand(Command):
    """A command with an ASKING before it, for a node that is taking over a slot. Each item has two replies.

    Args:
        command: carries one item.
    """

    def __init__(self, Command command):
        Command.__init__(
            self,
            command.name,
            many=False,
            with_values=command.with_values,
            tail=command.tail,
            expiry=command.expiry,
        )
        self.prefix = ASKING + command.prefix


def slot_of_key(key, str encoding, str errors):
    """Return the slot of a key of any type.

    Raises:
        EncodeError: a key cannot be of that type.
    """
    cdef bytes wire_key = key_bytes(key, encoding, errors)
    return slot_of(PyBytes_AS_STRING(wire_key), PyBytes_GET_SIZE(wire_key))


cdef class Router:
    """Knows the number of the node that has each slot.

    Args:
        owners: for each of the 16384 slots, the number of its node.
    """

    def __init__(self, owners):
        self.load(owners)

    def load(self, owners):
        """Replace the table of owners."""
        cdef Py_ssize_t slot
        if len(owners) != SLOTS:
            raise ValueError(f"{SLOTS} slots, not {len(owners)}")
        for slot in range(SLOTS):
            self.owners[slot] = owners[slot]

    cdef int node_of(self, const char* key, Py_ssize_t size) noexcept:
        return self.owners[slot_of(key, size)]

    def owner(self, Py_ssize_t slot):
        """Return the number of the node that has a slot."""
        if not 0 <= slot < SLOTS:
            raise ValueError(f"no slot {slot}")
        return self.owners[slot]

    def move(self, Py_ssize_t slot, short node):
        """Note that another node has a slot now."""
        if not 0 <= slot < SLOTS:
            raise ValueError(f"no slot {slot}")
        self.owners[slot] = node

    def split(self, Chunk chunk, Command command, positions=None):
        """Return some of a chunk's items (all by default) in sealed chunks for their nodes.

        The values are not serialized again. Items of one key keep their order.

        Returns:
            A dict from node to chunk.
        """
        cdef const char* p = chunk.data + chunk.command.headroom
        cdef Place place
        cdef Py_ssize_t i
        cdef Chunk part
        cdef dict parts = {}
        wanted = None if positions is None else set(positions)
        for i in range(chunk.items):
            p = chunk.next_item(p, &place)
            if wanted is None or i in wanted:
                node = self.owners[chunk.slot(&place, i)]
                part = parts.get(node)
                if part is None:
                    part = parts[node] = chunk.blank(command)
                part.add(&place, chunk, i)
        for part in parts.values():
            part.seal()
        return parts


cdef class RoutedWriter(BatchWriter):
    """Encodes items into a chunk for each node.

    Args:
        items, codec, max_items, max_bytes, encoding, errors: as BatchWriter takes them.
        command: carries one item.
        router: knows which node has which slot.
        found: a dict, or None. Each key that is taken gets `default` in it, unless it has a value. So the dict
            has the order of the input.
        order: a list, or None. Each key that is taken is appended to it.

    Attributes:
        taken: how many items were taken from the input, including those that could not be encoded.
    """

    def __init__(
        self,
        items,
        Command command,
        ValueCodec codec,
        Router router,
        *,
        Py_ssize_t max_items,
        Py_ssize_t max_bytes,
        str encoding="utf-8",
        str errors="strict",
        dict found=None,
        default=None,
        list order=None,
    ):
        BatchWriter.__init__(
            self, items, command, codec, max_items=max_items, max_bytes=max_bytes, encoding=encoding, errors=errors
        )
        self.router = router
        self.found = found
        self.default = default
        self.order = order
        self.filling = []
        self.positions = []
        self.spare = []

    def advance(self, Py_ssize_t most):
        """Take up to `most` items. Stop early when a chunk is full.

        Returns:
            The number of the node whose chunk is full, for sealed(). -1 if none is: `most` items were taken, or
            the source has no item ready, or there are no more.
        """
        cdef Py_ssize_t stop = self.taken + most
        self.source_pending = False
        while True:
            self.mark = -1
            try:
                return self.spread(stop)
            except SourcePending:
                self.source_pending = True
                return -1
            except BaseException as error:
                if not self.in_item:
                    if not isinstance(error, Exception):
                        raise
                    self.source_error = error
                    self.exhausted = True
                    return -1
                self.in_item = False
                if self.mark >= 0:
                    self.target.take_back(self.mark)
                if not isinstance(error, Exception):
                    self.taken -= 1
                    raise
                self.failures.append(self.failure(error))

    cdef Py_ssize_t spread(self, Py_ssize_t stop) except -2:
        cdef ItemExpiry expiry = self.command.expiry
        cdef Chunk chunk
        cdef object key
        cdef object wire_key
        cdef Py_ssize_t node
        while self.taken < stop:
            if not self.source.advance():
                self.exhausted = True
                return -1
            self.taken += 1
            self.mark = -1
            self.in_item = True
            key = wire_key = self.source.key
            if PyUnicode_CheckExact(key) and PyUnicode_IS_COMPACT_ASCII(key):
                node = self.router.node_of(<const char*>PyUnicode_DATA(key), PyUnicode_GET_LENGTH(key))
            else:
                if not PyBytes_CheckExact(key):
                    wire_key = key_bytes(key, self.encoding, self.errors)
                node = self.router.node_of(PyBytes_AS_STRING(wire_key), PyBytes_GET_SIZE(wire_key))
            chunk = self.chunk_for(node)
            self.target = chunk
            self.mark = chunk.end
            chunk.put_item(wire_key, self.source.value, self.codec, self.encoding, self.errors)
            if expiry is not None:
                chunk.put_time(expiry.of(key))
            chunk.item_keys.append(key)
            if self.command.with_values:
                chunk.item_values.append(self.source.value)
            chunk.items += 1
            self.in_item = False
            if self.found is not None:
                PyDict_SetDefault(self.found, key, self.default)
            if self.order is not None:
                self.order.append(key)
            if chunk.items >= self.max_items or chunk.end - chunk.start >= self.max_bytes:
                return node
        return -1

    cdef Chunk chunk_for(self, Py_ssize_t node):
        cdef Chunk chunk
        while len(self.filling) <= node:
            # In this order: each chunk has its position, even if there is no memory for the second append().
            self.positions.append(0)
            self.filling.append(None)
        chunk = self.filling[node]
        if chunk is None:
            if self.spare:
                chunk = self.spare.pop()
                chunk.restart(self.command)
            else:
                chunk = self.blank()
                if self.chunks >= len(self.filling):
                    # The batch is long: a chunk that grows bit by bit would be copied several times.
                    reserve(chunk, min(self.max_bytes * 9 // 8, SPARE_BYTES))
                self.chunks += 1
            self.filling[node] = chunk
            self.positions[node] = self.taken - 1
        return chunk

    def sealed(self, Py_ssize_t node):
        """Seal the chunk of a node, and return it with the position of its first item; None if there is none.

        The chunk stays here until leave(), so that it is always in one place at least.
        """
        cdef Chunk chunk = self.filling[node] if node < len(self.filling) else None
        if chunk is None:
            return None
        if chunk.items == 0:
            self.filling[node] = None
            return None
        chunk.seal()
        return chunk, self.positions[node]

    def leave(self, Py_ssize_t node):
        """Forget the chunk of a node: the caller has it now."""
        self.filling[node] = None

    def begun(self):
        """Return (node, position of the first item) of the chunks that are being filled."""
        cdef list begun = []
        for node, chunk in enumerate(self.filling):
            if chunk is not None:
                begun.append((node, self.positions[node]))
        return begun

    def recycle(self, Chunk chunk):
        """Take back a chunk that is not needed any longer, to use it again."""
        if len(self.spare) < SPARE_CHUNKS and chunk.capacity <= SPARE_BYTES:
            # Emptied now, so that its items do not live until it is used again.
            chunk.restart(self.command)
            self.spare.append(chunk)


cdef class RoutedCommandWriter(RoutedWriter):
    """Encodes commands into a chunk for each node. A command without a key, or with keys of several slots, fails.

    Args:
        commands, encoder, max_items, max_bytes: as CommandWriter takes them.
        router: knows which node has which slot.
        position: of the first command.
    """

    def __init__(
        self,
        commands,
        CommandEncoder encoder,
        Router router,
        *,
        Py_ssize_t max_items,
        Py_ssize_t max_bytes,
        int64_t position=0,
    ):
        RoutedWriter.__init__(
            self, (), ANY_COMMAND, ValueCodec(), router, max_items=max_items, max_bytes=max_bytes
        )
        self.source = ItemSource(commands, False)
        self.encoder = encoder
        self.scratch = OutputBuffer()
        self.first = position

    def blank(self):
        """Return an empty chunk."""
        return CommandChunk(self.command)

    cdef Py_ssize_t spread(self, Py_ssize_t stop) except -2:
        cdef OutputBuffer scratch = self.scratch
        cdef CommandChunk chunk
        cdef tuple command
        cdef int slot
        cdef Py_ssize_t node
        while self.taken < stop:
            if not self.source.advance():
                self.exhausted = True
                return -1
            self.taken += 1
            self.mark = -1
            self.in_item = True
            command = as_command(self.source.key)
            scratch.reset(0)
            scratch.shrink(SPARE_BYTES)
            self.encoder.put(scratch, command)
            slot = slot_of_command(scratch.data, self.encoder.name_of(command[0]))
            node = self.router.owners[slot]
            chunk = <CommandChunk>self.chunk_for(node)
            self.target = chunk
            self.mark = chunk.end
            chunk.append(scratch.data, scratch.end)
            chunk.item_values.append(self.source.key)
            chunk.number(self.first + self.taken - 1, slot)
            self.in_item = False
            if chunk.items >= self.max_items or chunk.end - chunk.start >= self.max_bytes:
                return node
        return -1

    def failure(self, error):
        """Return an entry of `failures` for the command that raised `error`."""
        return command_failure(self.first + self.taken - 1, self.source.key, error)
