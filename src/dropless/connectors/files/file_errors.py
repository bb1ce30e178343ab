"""What a file system says, as registered errors: an outage is retryable (L13), a refusal is not."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from dropless.errors import ConnectorError, problem

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EINVAL,
    errno.ELOOP,
}
_REFUSED_WORDS = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY",
    "SIGNATURE_DOES_NOT_MATCH",
    "HTTP status 403",
)


@contextmanager
def sink_errors(sink: str, where: str) -> Iterator[None]:
    """Errors of the operating system and of an object store leave this block as ConnectorError."""
    try:
        yield
    except OSError as error:
        raise _mapped(error, sink, where) from error


def _mapped(error: OSError, sink: str, where: str) -> ConnectorError:
    said = error.strerror or str(error)
    if error.errno in _FULL:
        text = f'sink "{sink}" has no room at {where}: {said}'
        return ConnectorError(problem("sink.disk_full", text, hint="free some space; the run goes on"), retryable=True)
    if error.errno in _REFUSED or any(word in said for word in _REFUSED_WORDS):
        return ConnectorError(problem("sink.refused", f'sink "{sink}" may not write at {where}: {said}'))
    text = f'sink "{sink}" cannot reach {where}: {said}'
    return ConnectorError(problem("sink.unreachable", text), retryable=True)
