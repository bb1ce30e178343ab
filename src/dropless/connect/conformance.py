"""What every source and sink must pass: subclass in a test module, say how one is made, and run pytest.

    class TestLinesSource(SourceConformance):
        def fill(self, folder): write_lines(folder / "a.txt", 1000)
        def make(self, context): return LinesSource(LinesConfig(path=str(context.folder)), context)

    class TestLinesSink(SinkConformance):
        def make(self, context): return LinesSink(LinesConfig(path=str(context.folder / "out")), context)
        def read(self, context): return rows_below(context.folder / "out")

Every case is named after what holds. A process that dies is played by dropping the object and making another from the
same context; `test_sigkill_*` really kill one. The process that is killed makes the class again without any pytest
fixture, so what `make` needs from outside, such as a server's address, it finds in the environment.
"""

from __future__ import annotations

from dropless.connect.sink_conformance import COLUMNS, NESTED_COLUMNS, VALUE_COLUMNS, SinkConformance, sample, table_of
from dropless.connect.source_conformance import SourceConformance, records_of

__all__ = [
    "COLUMNS",
    "NESTED_COLUMNS",
    "VALUE_COLUMNS",
    "SinkConformance",
    "SourceConformance",
    "records_of",
    "sample",
    "table_of",
]
