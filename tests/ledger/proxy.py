"""A small proxy before a server of PostgreSQL, which cuts connections at chosen words of the conversation."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Listens on a free port of 127.0.0.1. `cut` words are looked for in what clients send.

    Where the word is met, and `times` is not used up, the connection is cut: before the server is told it, or after it,
    so that the answer is lost.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.word = b""
        self.after = False
        self.times = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, word: bytes, after: bool, times: int = 1) -> None:
        self.word, self.after, self.times, self.cuts = word, after, times, 0

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                answers = threading.Event()
                answers.set()
                threading.Thread(target=self._forward, args=(client, server, answers), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, answers), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, answers: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.word and self.word in data and self.times:
                    self.times -= 1
                    self.cuts += 1
                    answers.clear()
                    if self.after:
                        server.sendall(data)
                    _end(client)
                    if not self.after:
                        _end(server)
                    return
                server.sendall(data)
        _end(server)

    def _answer(self, server: socket.socket, client: socket.socket, answers: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if answers.is_set():
                    client.sendall(data)
                else:
                    _end(server)  # It has answered: what it was told is done.
                    return
        _end(client)

    def close(self) -> None:
        self._listener.close()


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
