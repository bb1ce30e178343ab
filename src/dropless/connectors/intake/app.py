"""The service as an ASGI application: which receiver a path belongs to, bodies read within bounds, answers written."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

import orjson

from dropless.connectors.intake.receiver import Answer, Receiver, refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
BODY_SECONDS = 30.0
"""How long a body may take to arrive."""


class Gone(Exception):
    """The sender went away before its request was whole."""


class App:
    """Posts go to the receiver of their path; /healthz, /readyz and /metrics are for those who look after it."""

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._receivers = {r.path: r for r in receivers}
        self._answers: Counter[tuple[str, int]] = Counter()
        self.ending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"].rstrip("/") or "/"
        receiver = self._receivers.get(path)
        if receiver is None:
            answer = self._beside(path, scope["method"])
            if isinstance(answer, bytes):
                await _send(send, 200, answer, "text/plain; version=0.0.4", {})
                return
        elif scope["method"] != "POST":
            answer = refused(405, "method", "events are sent with POST", allow="POST")
        else:
            try:
                answer = await self._take(receiver, _headers(scope), receive)
            except Gone:
                return
        self._answers[path if receiver is not None else "other", answer.status] += 1
        await _send(send, answer.status, orjson.dumps(answer.body), "application/json", answer.headers)

    async def _take(self, receiver: Receiver, headers: Mapping[str, str], receive: Receive) -> Answer:
        sender = receiver.before(headers)
        if isinstance(sender, Answer):
            return sender
        held = _Held(receiver)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._body(receiver, receive, held)
            if isinstance(body, Answer):
                return body
            return await receiver.take(sender, headers, body)
        except TimeoutError:
            return refused(408, "timeout", f"the body took longer than {BODY_SECONDS:.0f} s", connection="close")
        finally:
            held.release()

    async def _body(self, receiver: Receiver, receive: Receive, held: _Held) -> bytes | Answer:
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            if part:
                parts.append(part)
                held.hold(len(part))
                if held.size > receiver.config.max_bytes:
                    return receiver.too_long()
                if len(parts) > 1 and (busy := receiver.busy()) is not None:
                    return busy
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _beside(self, path: str, method: str) -> Answer | bytes:
        if path == "/healthz":
            return Answer(200, {"status": "alive"})
        if path == "/readyz":
            return self._ready()
        if path == "/metrics":
            return self.metrics()
        return refused(404, "not_found", f"nothing takes events at {path[:200]}")

    def _ready(self) -> Answer:
        if self.ending:
            return refused(503, "ending", "the service is ending")
        for receiver in self._receivers.values():
            if (busy := receiver.busy()) is not None:
                return Answer(503, busy.body)
        return Answer(200, {"status": "ready"})

    def metrics(self) -> bytes:
        """Counters and gauges as Prometheus reads them."""
        lines = ["# TYPE dropless_intake_requests_total counter"]
        for (path, status), count in sorted(self._answers.items()):
            lines.append(f'dropless_intake_requests_total{{path="{path}",status="{status}"}} {count}')
        for name in ("accepted", "duplicates", "malformed", "bytes"):
            metric = f"dropless_intake_{'events_' + name if name != 'bytes' else name}_total"
            lines.append(f"# TYPE {metric} counter")
            lines += [f'{metric}{{path="{p}"}} {r.counts[name]}' for p, r in self._receivers.items()]
        for name in ("backlog_bytes", "in_flight_bytes", "events_stored"):
            lines.append(f"# TYPE dropless_intake_{name} gauge")
            lines += [f'dropless_intake_{name}{{path="{p}"}} {r.gauges()[name]}' for p, r in self._receivers.items()]
        lines.append("# TYPE dropless_intake_syncs_total counter")
        lines += [f'dropless_intake_syncs_total{{path="{p}"}} {r.commits.syncs}' for p, r in self._receivers.items()]
        return ("\n".join(lines) + "\n").encode()


class _Held:
    """Bytes of a request that are at work, counted at their receiver until they are released (L11)."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self.size = receiver, 0

    def hold(self, size: int) -> None:
        self.size += size
        self._receiver.in_flight += size

    def release(self) -> None:
        self._receiver.in_flight -= self.size


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _send(send: Send, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
    made = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    made += [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": made})
    await send({"type": "http.response.body", "body": body})
