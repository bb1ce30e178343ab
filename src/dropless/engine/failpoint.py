"""Named points at which a fault can be planted from outside, so that a real process can be killed there.

`DROPLESS_FAILPOINT="commit.before:2"` kills this process with SIGKILL the second time it reaches that point. Unset, a
point costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading

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
)

_name, _, _count = os.environ.get("DROPLESS_FAILPOINT", "").partition(":")
_left = int(_count or 1)
if _name and _name not in POINTS:
    raise RuntimeError(f"DROPLESS_FAILPOINT names no point: {_name!r}; there are {', '.join(POINTS)}")
_lock = threading.Lock()


def reach(point: str) -> None:
    """Returns, unless a kill is planted here: then the process is gone, as if the power had failed."""
    global _left
    assert point in POINTS, point
    if point != _name:
        return
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
