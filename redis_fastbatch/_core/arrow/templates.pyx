# cython: language_level=3
"""Encodes a command for each row of a table, from a template of its arguments."""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t, uint64_t

from redis_fastbatch._core.arrow.bulk cimport Literal, close_bulk, literal, put_literal
from redis_fastbatch._core.arrow.cells cimport (
    dictionary_index,
    is_flat,
    is_missing,
    is_text,
    read_time,
    refuse,
)
from redis_fastbatch._core.arrow.chunk cimport TableChunk
from redis_fastbatch._core.arrow.columns cimport (
    DATE_DAYS,
    DATE_MILLISECONDS,
    DICTIONARY,
    LOCAL_TIMESTAMP,
    TIMESTAMP,
    Column,
)
from redis_fastbatch._core.arrow.json cimport json_name, json_refusal, put_json_fields
from redis_fastbatch._core.arrow.rows cimport TableWriter, check_row, is_null_row
from redis_fastbatch._core.arrow.stream cimport ArrowStream
from redis_fastbatch._core.arrow.text cimport floor_div
from redis_fastbatch._core.arrow.values cimport make_room, put_plain
from redis_fastbatch._core.resp.commands cimport (
    CommandName,
    Word,
    after_command,
    first_word,
    next_word,
    slot_of_command,
)
from redis_fastbatch._core.resp.encoder cimport Chunk, Command, Place
from redis_fastbatch._core.resp.framing cimport digits, put_header
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer
from redis_fastbatch._core.runtime.decimals cimport put_decimal_int
from redis_fastbatch._core.runtime.utf8 cimport is_ascii

from redis_fastbatch._core.resp.command_chunks import ANY_COMMAND
from redis_fastbatch.errors import EncodeError, FastBatchError

cdef int64_t FARTHEST = <int64_t>9000000 * 1000000000

cdef enum:
    HEADER_ROOM = 32
    ISO = 0
    DAY = 86400

cdef enum Kind:
    CONSTANT        # bulk strings that are the same for each row
    PARTS
    ROW_JSON
    ROW_MSGPACK

cdef enum Null:
    FAIL
    SKIP
    SKIP_PAIR       # the argument before it is left out too


cdef struct Part:
    Literal literal
    Column* column          # NULL if this part is a literal
    int unit                # of a time: ISO, or ticks per second
    bint is_reencoded


cdef struct Argument:
    int kind
    int null
    Py_ssize_t words        # bulk strings of a constant
    Literal bulks           # of a constant
    Py_ssize_t first        # of its parts
    Py_ssize_t count
    Py_ssize_t width        # digits of its last length


cdef class TemplateChunk(TableChunk):
    """A chunk with a command for each row."""

    cdef CommandName name

    def __init__(self, CommandName name):
        TableChunk.__init__(self, ANY_COMMAND, None)
        self.name = name

    def row_value(self, Py_ssize_t wanted):
        """Return the words of a row's command."""
        cdef const char* p = self.data + self.command.headroom
        cdef Place place
        cdef Py_ssize_t i
        if not 0 <= wanted < self.items:
            raise IndexError(wanted)
        for i in range(wanted + 1):
            p = self.next_item(p, &place)
        return words_of(place.data)

    cdef Chunk blank(self, Command command):
        cdef TemplateChunk made = TemplateChunk(self.name)
        made.restart(command)
        return made

    cdef const char* next_item(self, const char* p, Place* place) noexcept:
        place.data = p + PyBytes_GET_SIZE(self.command.prefix)
        p = after_command(place.data)
        place.size = p - place.data
        return p

    cdef int slot(self, Place* place, Py_ssize_t i) noexcept:
        try:
            # The writer has checked it.
            return slot_of_command(place.data, self.name)
        except EncodeError:
            return 0


cdef list words_of(const char* p):
    """Return the words of the command at `p`, which this package wrote."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    cdef Word word
    cdef list words = []
    p = first_word(p, &count)
    for i in range(count):
        p = next_word(p, &word)
        words.append(PyBytes_FromStringAndSize(word.data, word.size))
    return words


cdef class TemplateWriter(TableWriter):
    """Encodes a command for each row.

    Args:
        stream: the table.
        name: the command's name.
        arguments: for each argument a tuple (kind, null, parts). The kind is "parts", "json" or "msgpack". A part
            is a literal as bytes, or a column as (name, unit): None for its text, or ticks per second, in which a
            time is counted from 1970. `null` is "fail", "skip" or "skip_pair".
        columns: the columns of the row's own argument; [] if there is none.
        used: the columns of the parts.
        routed: the commands go over a cluster, so that each must have keys of one slot.
        row_codec, layout: as for TableWriter.

    Raises:
        EncodeError: as from TableWriter, and for columns that cannot be arguments.
    """

    cdef CommandName name
    cdef Argument* arguments
    cdef Py_ssize_t n_arguments
    cdef Part* parts
    cdef bint routed
    cdef bint may_skip
    cdef Py_ssize_t words       # of a command from which nothing is left out
    cdef list owned
    cdef Literal* json_names

    def __init__(
        self, ArrowStream stream, CommandName name, list arguments, *, list columns, list used, bint routed, **layout
    ):
        TableWriter.__init__(
            self, stream, ANY_COMMAND, columns=columns, key=[], tag=b"", row_codec=None, also=used, **layout
        )
        cdef Py_ssize_t n_parts = 0
        cdef Py_ssize_t i
        for _, _, parts in arguments:
            n_parts += len(parts)
        self.name = name
        self.routed = routed
        self.owned = []
        self.arguments = <Argument*>PyMem_RawCalloc(len(arguments) + 1, sizeof(Argument))
        self.parts = <Part*>PyMem_RawCalloc(n_parts + 1, sizeof(Part))
        self.json_names = <Literal*>PyMem_RawCalloc(self.n_values + 1, sizeof(Literal))
        if self.arguments == NULL or self.parts == NULL or self.json_names == NULL:
            raise MemoryError()
        self.add_constant(name.bulks, name.count)
        names = [*columns, *used]
        n_parts = 0
        for kind, null, parts in arguments:
            if kind == "parts" and all(isinstance(part, bytes) for part in parts):
                text = b"".join(parts)
                self.add_constant(b"$%d\r\n%b\r\n" % (len(text), text), 1)
                continue
            n_parts = self.add_argument(kind, null, parts, names, n_parts)
        if self.json_names[0].data == NULL:
            for i in range(self.n_values):
                self.json_names[i] = self.kept(b"%b%b:" % (b"," if i else b"", json_name(&self.columns[i])))

    def __dealloc__(self):
        PyMem_RawFree(self.arguments)
        PyMem_RawFree(self.parts)
        PyMem_RawFree(self.json_names)

    cdef Literal kept(self, bytes text):
        self.owned.append(text)
        return literal(text)

    cdef int add_constant(self, bytes bulks, Py_ssize_t words) except -1:
        """Append bulk strings to the constant before them, or begin one."""
        cdef Argument* last = &self.arguments[self.n_arguments - 1] if self.n_arguments else NULL
        self.words += words
        if last != NULL and last.kind == CONSTANT:
            bulks = PyBytes_FromStringAndSize(last.bulks.data, last.bulks.size) + bulks
            words += last.words
        else:
            last = &self.arguments[self.n_arguments]
            self.n_arguments += 1
        last.kind = CONSTANT
        last.words = words
        last.bulks = self.kept(bulks)
        return 0

    cdef Py_ssize_t add_argument(self, str kind, str null, list parts, list names, Py_ssize_t n_parts) except -1:
        cdef Argument* argument
        cdef Argument* before = &self.arguments[self.n_arguments - 1]
        cdef Py_ssize_t i
        if null == "skip_pair":
            # The argument before it stands alone, so that it can be left out.
            self.split_last(before)
        argument = &self.arguments[self.n_arguments]
        self.n_arguments += 1
        argument.width = 1
        self.words += 1
        argument.null = {"fail": FAIL, "skip": SKIP, "skip_pair": SKIP_PAIR}[null]
        self.may_skip |= argument.null != FAIL
        if kind != "parts":
            argument.kind = ROW_JSON if kind == "json" else ROW_MSGPACK
            argument.width = 3
            if kind == "json":
                for i in range(self.n_values):
                    reason = json_refusal(&self.columns[i])
                    if reason is not None:
                        refuse(&self.columns[i], reason)
            return n_parts
        argument.kind = PARTS
        argument.first = n_parts
        argument.count = len(parts)
        for part in parts:
            if isinstance(part, bytes):
                self.parts[n_parts].literal = self.kept(part)
            else:
                self.add_column_part(&self.parts[n_parts], part, names)
            n_parts += 1
        return n_parts

    cdef int split_last(self, Argument* last) except -1:
        """Make an argument of its own of the last bulk string of a constant."""
        if last.kind != CONSTANT or last.words == 1:
            return 0
        bulks = []
        rest = PyBytes_FromStringAndSize(last.bulks.data, last.bulks.size)
        while rest:
            head, _, body = rest.partition(b"\r\n")
            size = int(head[1:])
            bulks.append(rest[:len(head) + 4 + size])
            rest = body[size + 2:]
        alone = bulks.pop()
        last.words -= 1
        last.bulks = self.kept(b"".join(bulks))
        last = &self.arguments[self.n_arguments]
        self.n_arguments += 1
        last.kind = CONSTANT
        last.words = 1
        last.bulks = self.kept(alone)
        return 0

    cdef int add_column_part(self, Part* part, tuple given, list names) except -1:
        cdef Column* c
        name, unit = given
        part.column = &self.columns[<Py_ssize_t>names.index(name)]
        if not is_flat(part.column):
            refuse(part.column, "a nested value cannot be an argument; row() writes it as JSON")
        part.is_reencoded = self.encoding is not None and is_text(part.column)
        part.unit = ISO if unit is None else unit
        c = part.column
        while c.kind == DICTIONARY:
            c = c.dictionary
        if part.unit != ISO and c.kind not in (TIMESTAMP, LOCAL_TIMESTAMP, DATE_DAYS, DATE_MILLISECONDS):
            refuse(part.column, "times= is for dates and timestamps, found another type")
        return 0

    def blank(self):
        """Return an empty chunk for fill()."""
        return TemplateChunk(self.name)

    def use(self, Command command):
        """Keep the command: it is in the template."""
        self.command = command

    cdef int put_row(self, TableChunk chunk) except -1 nogil:
        cdef Py_ssize_t start = chunk.end
        cdef Py_ssize_t words = self.words
        cdef Py_ssize_t i
        cdef Argument* argument
        cdef char* p
        check_row(self.stream, self.at())
        if self.may_skip:
            words = self.count_words()
        p = make_room(chunk, chunk.data + chunk.end, 2 * HEADER_ROOM)
        p = put_header(p, c'*', words, digits(words))
        for i in range(self.n_arguments):
            argument = &self.arguments[i]
            if self.may_skip and self.is_left_out(i):
                continue
            if argument.kind == CONSTANT:
                p = put_literal(chunk, p, &argument.bulks, HEADER_ROOM)
            else:
                p = self.put_argument(chunk, p, argument)
        chunk.end = p - chunk.data
        if self.routed and self.name.rule is not None:
            with gil:
                slot_of_command(chunk.data + start, self.name)
        return 0

    cdef Py_ssize_t count_words(self) except -1 nogil:
        cdef Py_ssize_t words = self.words
        cdef Py_ssize_t i
        for i in range(self.n_arguments):
            if self.is_left_out(i):
                words -= 1
        return words

    cdef bint is_left_out(self, Py_ssize_t i) except -1 nogil:
        """Return whether an argument is null and left out, or stands before one that takes it along."""
        cdef Argument* argument = &self.arguments[i]
        if argument.null != FAIL and self.has_null(argument):
            return True
        if i + 1 < self.n_arguments and self.arguments[i + 1].null == SKIP_PAIR:
            return self.has_null(&self.arguments[i + 1])
        return False

    cdef bint has_null(self, Argument* argument) except -1 nogil:
        cdef int64_t at = self.at()
        cdef Part* part
        cdef Py_ssize_t i
        for i in range(argument.first, argument.first + argument.count):
            part = &self.parts[i]
            if part.column != NULL and is_missing(part.column, at + part.column.offset):
                return True
        return False

    cdef char* put_argument(self, OutputBuffer out, char* p, Argument* argument) except NULL nogil:
        cdef Py_ssize_t header = p - out.data
        cdef Py_ssize_t i
        p = make_room(out, p, self.row_room + 2 * HEADER_ROOM) + argument.width + 3
        if argument.kind == ROW_MSGPACK:
            p = self.put_fields(out, p)
        elif argument.kind == ROW_JSON:
            p = put_json_fields(out, p, self.columns, self.json_names, self.n_values, self.at())
        else:
            for i in range(argument.first, argument.first + argument.count):
                p = self.put_part(out, p, &self.parts[i])
        p = make_room(out, p, 2 * HEADER_ROOM)
        return close_bulk(out, p, header, &argument.width)

    cdef char* put_part(self, OutputBuffer out, char* p, Part* part) except NULL nogil:
        cdef Column* c = part.column
        cdef int64_t at
        cdef Py_ssize_t start
        if c == NULL:
            return put_literal(out, p, &part.literal, HEADER_ROOM)
        at = self.at() + c.offset
        if is_missing(c, at):
            with gil:
                refuse(c, "is null")
        if part.unit != ISO:
            return put_epoch(make_room(out, p, HEADER_ROOM), c, at, part.unit)
        start = p - out.data
        p = put_plain(out, p, c, at, HEADER_ROOM)
        if part.is_reencoded and not is_ascii(out.data + start, p - out.data - start):
            with gil:
                p = self.reencode(out, out.data + start, p)
        return p

    cdef object row_value(self):
        """Return the words of the current row's command, for a report about its failure; None for one that fails."""
        cdef Py_ssize_t i
        cdef Argument* argument
        cdef list words = []
        if is_null_row(self.stream, self.at()):
            return None
        for i in range(self.n_arguments):
            argument = &self.arguments[i]
            try:
                if not self.is_left_out(i):
                    words += self.words_of_argument(argument)
            except (FastBatchError, MemoryError):
                words.append(None)
        return words

    cdef list words_of_argument(self, Argument* argument):
        cdef OutputBuffer out = OutputBuffer()
        cdef char* p
        cdef Word word
        cdef const char* q
        cdef Py_ssize_t i
        cdef list words = []
        if argument.kind == CONSTANT:
            q = argument.bulks.data
            for i in range(argument.words):
                q = next_word(q, &word)
                words.append(PyBytes_FromStringAndSize(word.data, word.size))
            return words
        out.grow(HEADER_ROOM)
        p = self.put_argument(out, out.data, argument)
        next_word(out.data, &word)
        return [PyBytes_FromStringAndSize(word.data, word.size)]


cdef char* put_epoch(char* p, Column* c, int64_t at, int unit) except NULL nogil:
    """Write a date or timestamp as the number of seconds or milliseconds since 1970, rounded down."""
    cdef int64_t ticks
    cdef int64_t own
    while c.kind == DICTIONARY:
        at = dictionary_index(c, at)
        c = c.dictionary
    ticks = read_time(c, at)
    if c.kind == DATE_DAYS:
        ticks *= <int64_t>DAY * unit
    else:
        own = <int64_t>1000 if c.kind == DATE_MILLISECONDS else c.unit
        if own > unit:
            ticks = floor_div(ticks, own // unit)
        elif own < unit:
            if ticks > FARTHEST or ticks < -FARTHEST:
                with gil:
                    raise EncodeError("a time is beyond what its number of milliseconds holds")
            ticks *= unit // own
    return put_decimal_int(p, <uint64_t>0 - <uint64_t>ticks if ticks < 0 else <uint64_t>ticks, ticks < 0)
