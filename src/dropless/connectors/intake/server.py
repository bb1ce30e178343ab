"""The intake as a process: its receivers behind one port, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from dropless.connect.serve import Serving
from dropless.connectors.intake.app import App
from dropless.connectors.intake.receiver import Receiver
from dropless.connectors.intake.source import IntakeSource
from dropless.errors import ConnectorError, Problem, problem

TIDY_SECONDS = 1.0
GRACE_SECONDS = 30
"""How long requests that are at work may take once the service is told to end."""


def serve(sources: Sequence[IntakeSource], serving: Serving) -> None:
    """Takes what is sent to these sources until it is told to end; every request that was taken is answered by then.

    Raises ConnectorError: of a log, of the address, or where the settings do not go together.
    """
    _refuse(sources, serving)
    uvicorn = _driver()
    listening = _listen(serving)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(sources, serving, uvicorn, listening))
    finally:
        listening.close()


async def _serve(sources: Sequence[IntakeSource], serving: Serving, uvicorn: Any, listening: socket.socket) -> None:
    receivers: list[Receiver] = []
    try:
        for source in sources:
            receivers.append(Receiver(source, lambda point, name=source.context.name: serving.reached(point, name)))  # type: ignore[misc]
            await receivers[-1].tidy()
        app = App(receivers)
        server = _quiet_server(uvicorn, app, serving)
        scheme = "https" if serving.certificate else "http"
        host, port = listening.getsockname()[:2]
        for receiver in receivers:
            url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{receiver.path}"
            serving.tell({"source": receiver.source.context.name, "url": url, "log": str(receiver.source.folder)})
        beside = asyncio.create_task(_beside(receivers, serving, app, server))
        await server.serve(sockets=[listening])
        beside.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beside
    finally:
        for receiver in receivers:
            await receiver.close()


async def _beside(receivers: Sequence[Receiver], serving: Serving, app: App, server: Any) -> None:
    """Looks after the logs, and for the wish to end."""
    loop = asyncio.get_running_loop()
    due = loop.time() + TIDY_SECONDS
    while True:
        await asyncio.sleep(0.05)
        if serving.stop.is_set():
            app.ending = server.should_exit = True
        if loop.time() >= due:
            due = loop.time() + TIDY_SECONDS
            for receiver in receivers:
                with contextlib.suppress(OSError):
                    await receiver.tidy()


def _quiet_server(uvicorn: Any, app: App, serving: Serving) -> Any:
    class Server(uvicorn.Server):  # type: ignore[misc]
        """Signals are the caller's affair."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            app,
            http="httptools",
            loop="none",
            lifespan="off",
            ws="none",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ssl_certfile=serving.certificate,
            ssl_keyfile=serving.key,
        )
    )


def _driver() -> Any:
    try:
        import httptools  # noqa: F401
        import uvicorn
    except ImportError as e:
        said = f"the intake needs {e.name}, which is not installed"
        raise ConnectorError(problem("source.driver_missing", said, hint="pip install 'dropless[intake]'")) from e
    return uvicorn


def _loop_factory() -> Any:
    """The quick event loop where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _listen(serving: Serving) -> socket.socket:
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((serving.host, serving.port))
        listening.listen(2048)
    except OSError as e:
        listening.close()
        said = f"{serving.host}:{serving.port} cannot be listened on: {e.strerror or e}"
        raise ConnectorError(problem("source.address", said, hint="choose another with --host and --port")) from e
    return listening


def _refuse(sources: Sequence[IntakeSource], serving: Serving) -> None:
    """Raises `source.bad_setting` with everything that does not go together."""
    wrong: list[Problem] = []
    paths: dict[str, str] = {}
    folders: dict[Any, str] = {}
    for source in sources:
        name, path = source.context.name, source.config.path or f"/{source.context.name}"
        auth = source.config.auth
        if not _is_local(serving.host) and not (auth and (auth.tokens or auth.hmac or auth.anonymous)):
            said = f'source "{name}" has no auth, but {serving.host} is reached from other machines'
            hint = "give it auth: {tokens: ...} or hmac, or auth: {anonymous: true} where anyone may send"
            wrong.append(problem("source.bad_setting", said, hint=hint))
        if path in paths or path in ("/healthz", "/readyz", "/metrics"):
            said = f'source "{name}" takes events at {path}, which is taken by {paths.get(path, "the service itself")}'
            wrong.append(problem("source.bad_setting", said, hint="give it another `path`"))
        if source.folder in folders:
            said = f'sources "{folders[source.folder]}" and "{name}" have the same log {source.folder}'
            wrong.append(problem("source.bad_setting", said, hint="give one of them another `log`"))
        paths[path] = folders[source.folder] = f'"{name}"'
    if wrong:
        raise ConnectorError(*wrong)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
