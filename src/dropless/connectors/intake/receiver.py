"""One source's side of the service: from a request to its answer. 2xx means that the events are durable."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dropless.connectors.intake.auth import Denied, Guard, Sender
from dropless.connectors.intake.bodies import Taken, events_of
from dropless.connectors.intake.commits import Commits
from dropless.connectors.intake.config import IntakeConfig
from dropless.connectors.intake.keys import Keys, digest
from dropless.connectors.intake.log import LogFailed, LogWriter, Reached
from dropless.connectors.intake.segment import Event, Group
from dropless.connectors.intake.source import IntakeSource
from dropless.connectors.intake.unpack import ENCODINGS, TooLong, Undecodable, unpacked

RETRY_AFTER = 1
"""Seconds after which a sender that was told to wait may try again."""
SHOWN = 10
"""How many malformed events an answer names."""
MOST_KEY = 1024


@dataclass(frozen=True)
class Answer:
    """What a sender is told."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def refused(status: int, error: str, said: str, **headers: str) -> Answer:
    """An answer that is no acknowledgement: the events are still the sender's."""
    return Answer(status, {"error": error, "message": said}, {k.replace("_", "-"): v for k, v in headers.items()})


class Receiver:
    """Takes what is sent to one source. Belongs to one event loop."""

    def __init__(self, source: IntakeSource, reached: Reached = lambda point: None) -> None:
        self.source, self.config = source, source.config
        self.path = self.config.path or f"/{source.context.name}"
        self._guard = Guard(self.config.auth)
        log = LogWriter(source.folder, reached=reached)
        try:
            keys = Keys(source.folder / "keys.sqlite", log)
        except BaseException:
            log.close()
            raise
        self.commits = Commits(log, keys)
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self._backlog, self._free, self._broken = 0, 1 << 62, ""
        self._seen = log.end

    # ------------------------------------------------------------ whether to take a request at all

    def before(self, headers: Mapping[str, str]) -> Answer | Sender:
        """The sender, or why the request is not taken; asked before its body is read."""
        try:
            sender = self._guard.admit(headers)
        except Denied as e:
            return refused(401, "unauthorized", str(e), www_authenticate="Bearer", connection="close")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.config.max_bytes:
            return self.too_long()
        return self.busy() or sender

    def too_long(self) -> Answer:
        said = f"a request has at most {self.config.max_bytes} bytes"
        return refused(413, "too_large", said, connection="close")

    def busy(self) -> Answer | None:
        """Why nothing can be taken now; None where it can."""
        if self._broken:
            return refused(503, "log_failed", self._broken, retry_after="30")
        if self._free < self.config.min_free:
            said = f"the disk of the log has {self._free} bytes free, and {self.config.min_free} are kept"
            return refused(507, "disk_full", said, retry_after="30")
        if self._backlog > self.config.max_backlog:
            said = f"{self._backlog} bytes wait for the pipeline, at most {self.config.max_backlog} may"
            return refused(429, "backlog", said, retry_after=str(RETRY_AFTER))
        if self.in_flight > self.config.max_in_flight:
            return refused(429, "in_flight", "too many requests are at work", retry_after=str(RETRY_AFTER))
        return None

    # ------------------------------------------------------------ taking it

    async def take(self, sender: Sender, headers: Mapping[str, str], body: bytes) -> Answer:
        """The events of the request are durable, once, or the answer is none of 2xx."""
        try:
            sender = self._guard.verify(sender, headers, body, time.time())
            body = unpacked(body, headers.get("content-encoding", ""), self.config.max_bytes)
        except Denied as e:
            return refused(401, "unauthorized", str(e))
        except TooLong:
            return self.too_long()
        except Undecodable as e:
            return refused(400 if e.known else 415, "content_encoding", str(e), accept_encoding=ENCODINGS)
        strict = self.config.malformed == "refuse"
        taken = events_of(body, headers, self.config.format, strict=strict)
        if not taken.values:
            if body.strip():
                return Answer(202, {"accepted": 0, "duplicates": 0})
            return refused(400, "empty", "the body is empty")
        if strict and taken.wrong:
            return refused(400, "malformed", _named(taken)[0]) if len(taken.wrong) == 1 else _malformed(taken)
        key = sender.key or headers.get("idempotency-key")
        if key is not None and not 0 < len(key) <= MOST_KEY:
            return refused(400, "idempotency_key", f"a key has 1 to {MOST_KEY} characters")
        try:
            if key is not None:
                return await self._once(sender, key, taken, headers, body)
            return await self._each_once(sender, taken, headers)
        except LogFailed as e:
            self._note_failure(e)
            return self.busy() or refused(503, "log_failed", str(e), retry_after=str(RETRY_AFTER))

    async def _once(self, sender: Sender, key: str, taken: Taken, headers: Mapping[str, str], body: bytes) -> Answer:
        """All events of a request that has a key. A sender's keys are its own."""
        short, content = digest("key", sender.name, key), digest(body)
        while (coming := self.commits.coming.get(short)) is not None and not coming.done():
            await asyncio.wait([coming])
        known = self.commits.find(short)
        if known is not None:
            if known.body != content:
                said = "this key was used for another body; nothing was stored"
                return refused(422, "idempotency_key", said)
            self.counts["duplicates"] += known.events
            return _answer(taken, 0, known.events)
        first = {"k": short.hex(), "n": len(taken.values), "d": content.hex()}
        group = self._group(sender, taken, range(len(taken.values)), headers, key, {0: first})
        await self.commits.commit(group, [short])
        return self._accepted(taken, group, 0)

    async def _each_once(self, sender: Sender, taken: Taken, headers: Mapping[str, str]) -> Answer:
        """Every event; one that names itself, as CloudEvents do, only where it is not here yet."""
        fresh: list[int] = []
        keys: dict[int, bytes] = {}
        waited: set[asyncio.Future[int]] = set()
        for i, identity in enumerate(taken.ids):
            if identity is None:
                fresh.append(i)
                continue
            short = digest("event", *identity)
            coming = self.commits.coming.get(short)
            if coming is not None:
                waited.add(coming)
            elif short not in keys.values() and self.commits.find(short) is None:
                fresh.append(i)
                keys[i] = short
        group = self._group(sender, taken, fresh, headers, None, {i: {"k": k.hex()} for i, k in keys.items()})
        if fresh:
            waited.add(self.commits.commit(group, list(keys.values())))
        for future in waited:
            await future
        self.counts["duplicates"] += len(taken.values) - len(fresh)
        return self._accepted(taken, group, len(taken.values) - len(fresh))

    def _group(
        self,
        sender: Sender,
        taken: Taken,
        which: Any,
        headers: Mapping[str, str],
        key: str | None,
        more: Mapping[int, Mapping[str, Any]],
    ) -> Group:
        common: dict[str, Any] = {}
        if sender.name:
            common["sender"] = sender.name
        if key is not None:
            common["key"] = key
        if self.config.format == "raw" and "content-type" in headers:
            common["type"] = headers["content-type"][:200]
        events = []
        for i in which:
            around = {**common, **more.get(i, {})}
            if taken.cloudevents and i in taken.wrong:
                around["suspect"] = "cloudevents"
            identity = taken.ids[i]
            if identity is not None and key is None:
                around["key"] = identity[1][:MOST_KEY]
            events.append(Event(taken.values[i], around or None))
        return Group(events)

    def _accepted(self, taken: Taken, group: Group, duplicates: int) -> Answer:
        self.counts["accepted"] += len(group.events)
        self.counts["bytes"] += group.size
        self.counts["malformed"] += len(taken.wrong)
        return _answer(taken, len(group.events), duplicates)

    def _note_failure(self, error: LogFailed) -> None:
        if error.full:
            self._free = -1  # Until the next look at the disk.
        else:
            self._broken = str(error)

    # ------------------------------------------------------------ beside requests

    async def tidy(self) -> None:
        """Called every second or so: what may go goes, and what is free and waiting is looked at."""
        config: IntakeConfig = self.config
        self._backlog, self._free = await self.commits.tidy(config.seconds("keep"), config.seconds("dedupe"))
        if self._broken and self.commits.log.usable:
            self._broken = ""

    def gauges(self) -> dict[str, int]:
        """What is so now, by name."""
        return {
            "backlog_bytes": self._backlog,
            "in_flight_bytes": self.in_flight,
            "events_stored": self.commits.log.end.seq,
        }

    async def close(self) -> None:
        """What was taken is durable or was refused; the log is free for another process."""
        await self.commits.close()


def _answer(taken: Taken, accepted: int, duplicates: int) -> Answer:
    body: dict[str, Any] = {"accepted": accepted, "duplicates": duplicates}
    if taken.wrong:
        body["malformed"] = len(taken.wrong)
        body["first_malformed"] = _named(taken)
    return Answer(202, body)


def _malformed(taken: Taken) -> Answer:
    said = f"{len(taken.wrong)} of {len(taken.values)} are malformed, nothing was stored: {'; '.join(_named(taken))}"
    return refused(400, "malformed", said)


def _named(taken: Taken) -> list[str]:
    return [f"{taken.place(i)}: {taken.wrong[i]}" for i in list(taken.wrong)[:SHOWN]]
