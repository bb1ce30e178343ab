"""`intake`: the service that events are sent to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from threading import Event

import click

from dropless.cli.common import as_json, definition, guarded, which
from dropless.cli.output import print_line
from dropless.cli.run import ending


@click.command()
@definition
@which
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--certificate", metavar="FILE", help="Certificate chain (PEM), to be reached over TLS.")
@click.option("--key", metavar="FILE", help="Private key of the certificate (PEM).")
@as_json
@guarded
def intake(
    path: str,
    pipeline: str | None,
    host: str,
    port: int,
    certificate: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Take events over HTTP into a durable log, for `run` to read.

    Serves every source of the kind `intake`. An answer of 202 means that the events are on disk; any other, that they
    are still the sender's. Ends on SIGTERM or Ctrl-C, when the requests at work are answered.

    \b
    Example: dropless intake pipelines/clicks.yaml --port 8090
             curl -H 'Content-Type: application/json' -d '{"id": 1}' http://127.0.0.1:8090/clicks
    """
    from dropless.connect.serve import Serving
    from dropless.engine.failpoint import reach
    from dropless.engine.receive import receive

    def tell(served: Mapping[str, str]) -> None:
        if as_json:
            print_line(served)
        else:
            click.echo(f"{served['source']}: {served['url']} -> {served['log']}")
        sys.stdout.flush()

    stop = Event()
    with ending(stop):
        receive(path, pipeline, Serving(host, port, tell, stop, reach, certificate, key))
