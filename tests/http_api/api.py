"""An HTTP API in this process that pages, counts what it is asked, and misbehaves as told."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Api:
    """`items` are its records, in order. `faults` are met by the next requests, one each."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.tokens: set[str] = set()
        self.given = 0
        self.size = 3
        self.lock = threading.Lock()
        self.url = ""

    def add(self, *ids: int, **more: Any) -> None:
        with self.lock:
            self.items += [{"id": i, "at": f"2026-01-01T00:00:{i % 60:02}", **more} for i in ids]

    def answer(self, path: str, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
        with self.lock:
            items = list(self.items)
        if path == "/cursor":
            start = int(query.get("after", 0))
            page = items[start : start + self.size]
            after = start + len(page)
            return {"data": {"items": page}, "next": str(after) if after < len(items) else None}, {}
        if path == "/feed":
            start = int(query.get("after", 0))
            page = items[start : start + self.size]
            return {"data": {"items": page}, "next": str(start + len(page))}, {}
        if path == "/page":
            number = int(query["page"]) - 1
            return items[number * self.size : (number + 1) * self.size], {}
        if path == "/offset":
            start, size = int(query["offset"]), int(query["limit"])
            return items[start : start + size], {}
        if path == "/link":
            start = int(query.get("s", 0))
            more = start + self.size < len(items)
            link = f'<{self.url}/link?s=0>; rel="first", </link?s={start + self.size}>; title="a, b"; rel="next"'
            return items[start : start + self.size], {"Link": link if more else ""}
        if path == "/last":
            after = query.get("starting_after")
            start = next((n + 1 for n, i in enumerate(items) if str(i["id"]) == after), 0)
            page = items[start : start + self.size]
            return {"data": page, "has_more": start + len(page) < len(items)}, {}
        if path == "/since":
            return [i for i in items if i["at"] >= query.get("since", "")], {}
        if path == "/elsewhere":
            return items, {"Link": '<http://127.0.0.2:1/x>; rel="next"'}
        raise KeyError(path)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        known = "Basic " + base64.b64encode(b"me:secret").decode()
        if self.headers["Authorization"] != known or "grant_type=client_credentials" not in body:
            self.say(401, {})
            return
        self.api.given += 1
        token = f"token-{self.api.given}"
        self.api.tokens = {token}
        self.say(200, {"access_token": token, "expires_in": 3600, "scope": body})

    def do_GET(self) -> None:
        api, parts = self.api, urlsplit(self.path)
        with api.lock:
            api.asked.append(self.path)
            api.times.append(time.monotonic())
            api.headers.append(dict(self.headers))
            fault = api.faults.pop(0) if api.faults else ""
        if fault.isdigit():
            self.say(int(fault), {"error": fault}, {"Retry-After": "0"} if fault in ("429", "503") else {})
            return
        if fault.startswith("wait "):
            self.say(429, {}, {"Retry-After": fault.removeprefix("wait ")})
            return
        if api.tokens and self.headers["Authorization"] not in {f"Bearer {t}" for t in api.tokens}:
            self.say(401, {})
            return
        if fault == "slow":
            time.sleep(1.6)
        try:
            found, headers = api.answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()})
        except KeyError:
            self.say(404, {})
            return
        if fault == "cut":
            whole = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole) + 10))
            self.end_headers()
            self.wfile.write(whole)
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if fault == "html":
            found = "<html>"
        self.say(200, found, headers)

    def say(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        try:
            self.send_response(status)
            for name, text in (headers or {}).items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed in these tests."""


@contextmanager
def serving() -> Iterator[Api]:
    api = Api()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
