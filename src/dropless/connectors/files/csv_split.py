"""Where CSV records begin and end, strictly after RFC 4180, and how reading goes on after a broken quote.

The rule, by which a record's fate depends on nothing but the bytes from its own beginning on:

1. A cell that begins with a quote ends at the next quote that is not doubled; a delimiter or a line end must follow.
   A quote anywhere else is broken. A record ends at the first line end outside quotes.
2. A record with a broken quote, a quote that does not close within `max_record_bytes` (or before the file ends), or
   that runs over lines and has not the header's number of cells, is refused.
3. A refused record reaches to the end of the line of the fault (an unclosed one to the end of the file); but if at one
   of its further lines a record begins that reads well, with the header's number of cells, it ends before that line.
   So one stray quote costs its own line, and a record of several lines with a slip in it stays in one piece.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

import numpy as np

from dropless.connectors.files.chunk import LONG, Segments

STEP = 4096
"""Records looked at together; a fault among them costs no more than looking at these again."""

CSV = "csv"


@dataclass(frozen=True)
class Dialect:
    """How a file is written. `unit` is the size of a code unit; wide ones are looked at as one byte each."""

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    unit: int = 1
    limit: int = 16 << 20
    _patterns: dict[int | None, re.Pattern[bytes]] = field(default_factory=dict, compare=False, repr=False)

    def record(self, width: int | None = None) -> re.Pattern[bytes]:
        """Matches the cells of a record as far as they are well formed: any number of them, or exactly `width`."""
        if width not in self._patterns:
            d, q = re.escape(self.delimiter.encode()), re.escape(self.quote.encode())
            cell = rb"(?:%b(?:[^%b]++|%b%b)*+%b|[^%b%b\n]*+)" % (q, q, q, q, q, d, q) if q else rb"[^%b\n]*+" % d
            more = rb"*+" if width is None else b"{%d}+" % (width - 1)
            self._patterns[width] = re.compile(cell + rb"(?:" + d + cell + rb")" + more, re.DOTALL)
        return self._patterns[width]

    def narrow(self, data: bytes, final: bool) -> bytes:
        """The text with one byte for each code unit, so that line ends, quotes and delimiters can be found.

        Bytes at the end that are no whole unit count as one if nothing follows.
        """
        if self.unit == 1:
            return data
        odd = len(data) % self.unit
        if odd:
            data = data + b"\xff" * (self.unit - odd) if final else data[: len(data) - odd]
        order = "<" if self.encoding.endswith("le") else ">"
        units = np.frombuffer(data, f"{order}u{self.unit}")
        return np.where(units < 128, units, 1).astype(np.uint8).tobytes()


def wide_encoding(name: str, head: bytes) -> tuple[str, int]:
    """The encoding with its byte order, by the file's first bytes, and the size of its code unit."""
    name = codecs.lookup(name).name
    if name == "utf-16":
        return ("utf-16-be" if head.startswith(codecs.BOM_UTF16_BE) else "utf-16-le"), 2
    if name == "utf-32":
        return ("utf-32-be" if head.startswith(codecs.BOM_UTF32_BE) else "utf-32-le"), 4
    if name.startswith(("utf-16", "utf-32")):
        return name, 2 if name.startswith("utf-16") else 4
    return "utf-8" if name == "utf-8-sig" else name, 1


def byte_order_mark(encoding: str, head: bytes) -> bytes:
    """The mark `head` begins with, if it is one of this encoding."""
    marks = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
    marks |= {"utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE}
    mark = marks.get(encoding, b"")
    return mark if mark and head.startswith(mark) else b""


def segment(data: bytes, dialect: Dialect, width: int | None, final: bool) -> Segments:
    """The records of `data`, which begins with one. Not `final`: what the bytes to come could change is left over."""
    text = dialect.narrow(data, final)
    array = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero(array == 10)
    if dialect.quote and dialect.quote.encode() in text:
        walk = _Walk(text, array, breaks, dialect, width, final)
        starts, ends, consumed, overlong = walk.run()
        flags = walk.flags
    else:
        starts, ends, consumed = _lines(len(text), breaks, final)
        overlong = not consumed and len(text) > dialect.limit + 1
        walk, flags = None, {}
    ends = _without_returns(text, array, starts, ends, consumed, flags, walk)
    full = ends > starts
    if not full.all():
        kept = np.flatnonzero(full)
        if flags:
            renumbered = dict(zip(kept.tolist(), range(len(kept)), strict=True))
            flags = {renumbered[i]: flag for i, flag in flags.items() if i in renumbered}
        starts, ends = starts[kept], ends[kept]
    if len(text) > dialect.limit:
        for i in np.flatnonzero(ends - starts > dialect.limit).tolist():
            flags[i] = (LONG, "")
    u = dialect.unit
    return Segments(starts * u, np.minimum(ends * u, len(data)), flags, min(consumed * u, len(data)), overlong)


def _lines(size: int, breaks: np.ndarray, final: bool) -> tuple[np.ndarray, np.ndarray, int]:
    starts = np.concatenate([np.zeros(1, np.int64), breaks + 1])
    if final and starts[-1] < size:
        return starts, np.concatenate([breaks, np.full(1, size, np.int64)]), size
    return starts[:-1], breaks, size if final else int(starts[-1])


def _without_returns(
    text: bytes,
    array: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    consumed: int,
    flags: dict[int, tuple[str, str]],
    walk: _Walk | None,
) -> np.ndarray:
    """Ends before the carriage return of a line end. One that stands elsewhere outside quotes is flagged."""
    if b"\r" not in text or not len(starts):
        return ends
    stripped = (array[np.maximum(ends - 1, 0)] == 13) & (ends > starts)
    ends = ends - stripped
    if text.count(b"\r", 0, consumed) > np.count_nonzero(stripped):
        returns = np.flatnonzero(array[:consumed] == 13)
        at = np.searchsorted(starts, returns, side="right") - 1
        inside = (at >= 0) & (returns < ends[at])
        returns, at = returns[inside], at[inside]
        if walk is not None and len(returns):
            before = np.searchsorted(walk.quotes, returns) - np.searchsorted(walk.quotes, starts[at])
            at = at[before % 2 == 0]
        for i in np.unique(at).tolist():
            flags.setdefault(i, (CSV, "a carriage return without a line feed stands outside quotes"))
    return ends


class _Walk:
    """Finds the records of text with quotes: whole stretches at once while quotes stand where they may, else singly."""

    def __init__(
        self, text: bytes, array: np.ndarray, breaks: np.ndarray, dialect: Dialect, width: int | None, final: bool
    ) -> None:
        self._text, self._size, self._array, self._breaks = text, len(text), array, breaks
        self._dialect, self._width, self._final = dialect, width, final
        self._quote, self._delimiter = dialect.quote.encode()[0], dialect.delimiter.encode()[0]
        self.quotes = np.flatnonzero(array == self._quote)
        self.flags: dict[int, tuple[str, str]] = {}
        self._starts: list[np.ndarray] = []
        self._ends: list[np.ndarray] = []
        self._count = 0
        self._consumed = 0
        self._overlong = False
        before = np.searchsorted(self.quotes, breaks)
        # By parity: the line ends outside quotes if an even, or an odd, quote opens a cell.
        self._line_ends = [np.flatnonzero(before % 2 == parity) for parity in (0, 1)]
        self._record_ends = [breaks[lines] for lines in self._line_ends]
        self._wrong = self._misplaced()

    def run(self) -> tuple[np.ndarray, np.ndarray, int, bool]:
        at = 0
        while at < self._size:
            at, done = self._stretch(at)
            if at >= self._size or (done and not self._final and self._size - at <= self._dialect.limit + 1):
                break
            after = self._single(at)
            if after is None:
                break
            at = after
        self._consumed = min(at, self._size)
        none = np.zeros(0, np.int64)
        return (
            np.concatenate(self._starts) if self._starts else none,
            np.concatenate(self._ends) if self._ends else none,
            self._consumed,
            self._overlong,
        )

    def _misplaced(self) -> list[np.ndarray]:
        """The quotes that may not stand where they are, if even ones open a cell, and if odd ones do."""
        array, quotes, size = self._array, self.quotes, self._size
        before = array[np.maximum(quotes - 1, 0)]
        before[quotes == 0] = 10
        after = array[np.minimum(quotes + 1, size - 1)]
        second = array[np.minimum(quotes + 2, size - 1)]
        # What stands beyond the end is a line end, or will be judged when it is there.
        after[quotes + 1 >= size] = 10
        second[quotes + 2 >= size] = 10
        opens = (before == self._delimiter) | (before == 10) | (before == self._quote)
        closes = (after == self._delimiter) | (after == 10) | (after == self._quote) | ((after == 13) & (second == 10))
        even = np.arange(len(quotes)) % 2 == 0
        return [np.flatnonzero(np.where(even == (parity == 0), ~opens, ~closes)) for parity in (0, 1)]

    def _stretch(self, at: int) -> tuple[int, bool]:
        """Takes records up to one that needs a closer look: where that is, and True where none is known to."""
        base = int(np.searchsorted(self.quotes, at))
        lines, wrong = self._line_ends[base % 2], self._wrong[base % 2]
        first_wrong = int(np.searchsorted(wrong, base))
        ends = self._record_ends[base % 2]
        low = int(np.searchsorted(ends, at))
        high = len(ends)
        fault = first_wrong < len(wrong)
        if fault:
            high = int(np.searchsorted(ends, self.quotes[wrong[first_wrong]]))
        line = int(np.searchsorted(self._breaks, at))
        while low < high:
            to = min(high, low + STEP)
            stop = ends[low:to]
            begin = np.concatenate([np.array([at], np.int64), stop[:-1] + 1])
            spanned = np.diff(lines[low:to], prepend=line - 1) > 1
            suspect = self._suspect(begin, stop, spanned)
            if suspect is not None:
                self._take(begin[:suspect], stop[:suspect])
                return int(begin[suspect]), False
            self._take(begin, stop)
            at, line, low = int(stop[-1]) + 1, int(lines[to - 1]) + 1, to
        return at, not fault

    def _suspect(self, starts: np.ndarray, ends: np.ndarray, spanned: np.ndarray) -> int | None:
        """The first record over several lines that is too long or has not the right number of cells."""
        if not spanned.any():
            return None
        where = np.flatnonzero(spanned)
        wrong = ends[where] - starts[where] > self._dialect.limit
        if self._width is not None:
            wrong |= self._widths(starts[where], ends[where]) != self._width
        found = where[wrong]
        return int(found[0]) if len(found) else None

    def _widths(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The number of cells of well-formed records."""
        pieces = b"".join([self._text[s : e + 1] for s, e in zip(starts.tolist(), ends.tolist(), strict=True)])
        array = np.frombuffer(pieces, np.uint8)
        begin = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends + 1 - starts)[:-1]])
        outside = np.cumsum(array == self._quote) % 2 == 0
        return np.add.reduceat(((array == self._delimiter) & outside).astype(np.int64), begin) + 1

    def _take(self, starts: np.ndarray, ends: np.ndarray) -> None:
        self._starts.append(starts)
        self._ends.append(ends)
        self._count += len(starts)

    def _flag(self, start: int, end: int, rule: str, reason: str) -> int:
        self.flags[self._count] = (rule, reason)
        return self._keep(start, end)

    def _keep(self, start: int, end: int) -> int:
        self._take(np.array([start], np.int64), np.array([end], np.int64))
        return end + 1

    def _single(self, start: int) -> int | None:
        """Takes the one record at `start`, good or refused; where the next begins, None where more bytes are needed."""
        text, limit = self._text, self._dialect.limit
        stop = min(self._size, start + limit + 2)
        whole = self._final and stop == self._size  # Nothing comes after `stop`.
        match = self._dialect.record().match(text, start, stop)
        assert match is not None
        at = match.end()
        if at == stop:
            if whole:
                return self._judged(start, stop)
            return self._beyond(start, stop)
        if text[at] == 10:
            return self._judged(start, at)
        if text[at] == 13 and (text[at + 1 : at + 2] == b"\n" or (whole and at + 1 == stop)):
            return self._judged(start, min(at + 1, stop))
        opens = text[at] == self._quote and (at == start or text[at - 1] == self._delimiter)
        if opens:
            reason = "a quote is not closed"
            if whole:
                return self._refused(start, stop - text.endswith(b"\n", start, stop), reason)
            return self._beyond(start, stop, reason)
        inside = text[at] == self._quote
        reason = (
            "a quote stands inside a cell that is not quoted" if inside else "a cell goes on after its closing quote"
        )
        end = text.find(b"\n", at, stop)
        if end < 0:
            return self._refused(start, stop, reason) if whole else self._beyond(start, stop, reason)
        return self._refused(start, end, reason)

    def _judged(self, start: int, end: int) -> int | None:
        """A well-formed record; over several lines it must have the right number of cells."""
        if self._width is not None and self._text.find(b"\n", start, end) >= 0:
            pattern = self._dialect.record(self._width)
            tail = end - (self._text[end - 1] == 13)
            if pattern.fullmatch(self._text, start, end) is None and pattern.fullmatch(self._text, start, tail) is None:
                return self._refused(start, end, f"the record runs over lines and has not {self._width} cells")
        return self._keep(start, end)

    def _refused(self, start: int, end: int, reason: str, alone: int | None = None) -> int | None:
        """Refuses the record up to the first further line before `end` at which a record begins that reads well.

        If there is none, up to `alone`, or else `end`.
        """
        line = self._text.find(b"\n", start, end) + 1
        while 0 < line < end:
            well = self._reads_well(line, start)
            if well is None:
                return None
            if well:
                return self._flag(start, line - 1, CSV, reason)
            line = self._text.find(b"\n", line, end) + 1
        return self._flag(start, end if alone is None else alone, CSV, reason)

    def _reads_well(self, line: int, start: int) -> bool | None:
        """True where a record with the right number of cells begins at `line`, None where bytes to come decide that.

        It must end where the record that begins at `start` might have, so that the answer does not depend on chunks.
        """
        text, stop = self._text, min(self._size, start + self._dialect.limit + 2)
        whole = self._final and stop == self._size
        match = self._dialect.record(self._width).match(text, line, stop)
        at = match.end() if match else self._reach(line, stop)
        unclosed = at < stop and text[at] == self._quote and (at == line or text[at - 1] == self._delimiter)
        open_ = unclosed or at == stop or (text[at] == 13 and at + 1 == stop)
        if open_ and not whole and stop - start < self._dialect.limit + 2:
            return None
        if match is None or text[line:at] in (b"", b"\r"):
            return False
        if at == stop:
            return whole
        return text[at] == 10 or (text[at] == 13 and (text[at + 1] == 10 if at + 1 < stop else whole))

    def _reach(self, start: int, stop: int) -> int:
        """How far the text is a record of any number of cells."""
        match = self._dialect.record().match(self._text, start, stop)
        assert match is not None
        return match.end()

    def _beyond(self, start: int, stop: int, reason: str = "") -> int | None:
        """A record that does not end before `stop`: wait for more bytes, or it is over the limit."""
        if stop - start < self._dialect.limit + 2:
            return None
        first = self._text.find(b"\n", start, stop)
        if first < 0:
            end = self._text.find(b"\n", stop)
            if end < 0 and not self._final:
                self._overlong = True
                return None
            return self._keep(start, end if end >= 0 else self._size)  # Flagged by its length.
        reason = f"{reason or 'the record does not end'} within {self._dialect.limit} bytes"
        return self._refused(start, stop, reason, alone=first)
