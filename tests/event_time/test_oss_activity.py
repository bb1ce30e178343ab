"""On real events in the order of their arrival the late ones are those that were counted independently, to the row.

The numbers are of the data's own page: events whose time lies before the highest time before them, less the lateness.
The rule itself is tested on made data in `test_late`; this needs the data and is left out where it is not.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dropless.connect.api import place
from dropless.engine.timeline import Timeline
from dropless.spec.model import EventTime

ARCHIVE = Path(__file__).parents[2].parent / "shared" / "data" / "oss_activity.tar.zst"
LATE = {60: 361_076, 300: 355_601, 3_600: 318_091, 86_400: 189_226, 7 * 86_400: 89_711}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    if not ARCHIVE.is_file():
        pytest.skip("the real events are not here")
    folder = tmp_path_factory.mktemp("oss")
    subprocess.run(["tar", "--zstd", "-xf", str(ARCHIVE), "-C", str(folder)], check=True)
    rows = pq.read_table(next(folder.rglob("events.parquet")), columns=["occurred_at"])
    return rows.append_column("__at0", pa.array(np.arange(rows.num_rows) + place(1, 0), pa.int64()))


@pytest.mark.parametrize("lateness", LATE)
def test_late_events_are_those_counted_independently(events: pa.Table, lateness: int) -> None:
    timeline = Timeline({"events": EventTime("occurred_at", lateness_seconds=lateness)})
    timeline.begin()
    late = 0
    for begin in range(0, events.num_rows, 70_000):
        ticket = timeline.ticket("events", 1)
        assert ticket is not None
        low = timeline.judge(ticket, events.slice(begin, 70_000))
        late += len(low.places) if low is not None else 0
        if begin % 210_000 == 0:  # An epoch ends.
            timeline.committed()
            timeline.begin()
    assert late == LATE[lateness]
