"""Fills the log of an HTTP source page by page. A page's records and the request for the next page are one group of the
log, so a process that dies asks again for what it has not kept, and for nothing that it has."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from dropless.connectors.http.client import Client
from dropless.connectors.http.config import HttpConfig
from dropless.connectors.http.pages import Record, State, Unexpected, after, dig, records_of, request
from dropless.connectors.intake.keys import Keys, Known, digest
from dropless.connectors.intake.log import LogFailed, LogWriter, Reached
from dropless.connectors.intake.segment import Event, Group
from dropless.errors import ConnectorError, problem

TRIES = 6
"""Failures in a row after which an outage is told to the run, which waits and tries on."""
LONGEST = 30.0
PATIENCE = 2.0
"""Seconds that a request under way is waited for at the end."""
SHOWN_KEY = 200


class Feeder:
    """The one writer of the source's log. Opened only by a run that takes what is new."""

    def __init__(
        self, config: HttpConfig, who: str, folder: Path, client: Client, reached: Reached = lambda point: None
    ) -> None:
        self._config, self._who, self._client = config, who, client
        self.log = LogWriter(folder, reached=reached)
        try:
            self._keys = Keys(folder / "keys.sqlite", self.log)
        except BaseException:
            self.log.close()
            raise
        self.state = State.of(self.log.state)
        self._recent: dict[bytes, Known] = {}
        self._stop, self._lock, self._closed = threading.Event(), threading.Lock(), False
        self._thread: threading.Thread | None = None
        self._error: ConnectorError | None = None
        self._tidied = 0.0

    # ------------------------------------------------------------ one page

    def begin_poll(self) -> None:
        """The next page is the first one of a poll, unless one is under way."""
        if self.state.ended:
            self.state = State(self.state.next, self.state.since, self.state.high)

    def page(self) -> bool:
        """The next page is in the log; returns whether there is one more. Raises ConnectorError."""
        url, params = request(self._config, self.state)
        page = self._client.get(url, params)
        try:
            records, whole = records_of(self._config, page)
            state = after(self._config, self.state, page, records, whole)
        except Unexpected as e:
            said = f"{self._who}: a page of {url.partition('?')[0]} is not as the settings say: {e}"
            raise ConnectorError(problem("source.http_refused", said)) from None
        with self._lock:
            if not self._closed:
                self._keep(records, state)
        return not state.ended

    def _keep(self, records: list[Record], state: State) -> None:
        events: list[Event] = []
        keys: dict[bytes, None] = {}
        for record in records:
            around: dict[str, Any] | None = None
            if self._config.key:
                key, shown = self._key(record)
                if key in keys or key in self._recent or self._keys.find(key) is not None:
                    continue
                keys[key] = None
                around = {"k": key.hex(), "key": shown}
            events.append(Event(record.raw, around))
        # What a poll without news has passed need not be kept: what it asks for again is known by its keys.
        if events or (state.stored() != self.log.state and (state.ended or not self._config.key)):
            self._append(Group(events, state.stored()), list(keys))
        self.state = state

    def _append(self, group: Group, keys: list[bytes]) -> None:
        try:
            [first] = self.log.append([group])
        except LogFailed as e:
            raise ConnectorError(problem("source.unreachable", f"{self._who}: {e}"), retryable=True) from e
        self._recent |= {key: Known(first + i, 1, b"") for i, key in enumerate(keys)}
        if self._recent:
            with suppress(sqlite3.Error):  # They stay known here, and the next page tries again.
                self._keys.note(list(self._recent.items()), self.log.end.seq)
                self._recent = {}

    def _key(self, record: Record) -> tuple[bytes, str]:
        """What tells a record from others; all of its bytes where a value of the key is missing."""
        found = [dig(record.value, path) for path in self._config.key]
        if None in found:
            return digest("record", record.raw), ""
        texts = [orjson.dumps(value).decode() for value in found]
        shown = str(found[0]) if len(found) == 1 else ",".join(texts)
        return digest("key", *texts), shown[:SHOWN_KEY]

    # ------------------------------------------------------------ beside a run that goes on

    def go_on(self) -> None:
        """Polls go on in a thread of their own until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._poll, name="dropless-http", daemon=True)
            self._thread.start()

    def raise_if_failed(self) -> None:
        """Raises what stands in the way of the polls, if anything does."""
        if self._error is not None:
            raise self._error

    def _poll(self) -> None:
        failures = 0
        while not self._stop.is_set():
            wait = 0.0
            try:
                self.begin_poll()
                if not self.page():
                    wait = self._config.seconds("every")
                self.tidy()
                failures, self._error = 0, None
            except ConnectorError as error:
                failures += 1
                if not error.retryable or failures >= TRIES:
                    self._error = error
                wait = error.retry_after if error.retry_after is not None else min(LONGEST, 0.2 * 2**failures)
                if not error.retryable:
                    return
            except Exception as error:  # Ours, or the disk's: the run must hear of it.
                self._error = ConnectorError(problem("source.unreachable", f"{self._who}: {error}"))
                return
            self._stop.wait(wait)

    def tidy(self, clock: Callable[[], float] = time.time) -> None:
        """Files that all have read and whose time is over go."""
        with self._lock:
            if not self._closed and clock() - self._tidied > 1:
                self._tidied = clock()
                self.log.drop(clock() - self._config.seconds("keep"))

    def close(self) -> None:
        """The polls end; the log is free for another process. An answer that comes later is not kept: it is asked for
        again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)
        with self._lock:
            self._closed = True
            self._keys.close()
            self.log.close()
