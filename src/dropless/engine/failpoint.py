"""Named points at which a fault can be planted from outside, so that a real process can be killed there.

`DROPLESS_FAILPOINT="commit.before:2"` kills this process with SIGKILL the second time it reaches that point, and
`"publish.before[lake]:1"` the first time for the sink "lake". `plant` lets the harness of `prove` do what it likes at a
point. Without either, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

POINTS = (
    "read",
    "decode",
    "transform",
    "state.write",
    "letters.write",
    "sink.prepare",
    "commit.before",
    "commit.after",
    "publish.before",
    "publish.after",
    "finish.before",
    "finish.after",
    "replay",
    "backfill",
    "intake.write",
    "intake.sync",
    "intake.ack",
)

Handler = Callable[[str, str], None]
_handler: Handler | None = None


def reach(point: str, subject: str = "") -> None:
    """Returns, unless a fault is planted here. `subject` is the sink or source the point is about, where it has one."""
    if _handler is not None:
        assert point in POINTS, point
        _handler(point, subject)


def plant(handler: Handler | None) -> None:
    """The handler is called at every point from now on, in the thread that reaches it; None takes it away."""
    global _handler
    _handler = handler


def parse(text: str) -> tuple[str, str, int]:
    """Point, subject ("" for any) and count of `point[subject]:count`. Raises RuntimeError for no such point."""
    name, _, count = text.partition(":")
    point, _, subject = name.partition("[")
    if point not in POINTS:
        raise RuntimeError(f"DROPLESS_FAILPOINT names no point: {point!r}; there are {', '.join(POINTS)}")
    return point, subject.removesuffix("]"), int(count or 1)


def killer(point: str, subject: str, count: int) -> Handler:
    """A handler that kills this process the `count`-th time the point is reached, as if the power had failed."""
    left = count
    lock = threading.Lock()

    def handle(reached: str, about: str) -> None:
        nonlocal left
        if reached != point or (subject and about != subject):
            return
        with lock:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return handle


if _planted := os.environ.get("DROPLESS_FAILPOINT"):
    plant(killer(*parse(_planted)))
