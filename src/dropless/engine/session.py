"""DuckDB connections as the engine wants them: nothing fetched from outside, UTC, rows in order, memory bounded.

Every connection of the engine is made here. A cursor of such a connection keeps the settings but not the variables, so
`set_run_started` must be called for each cursor that evaluates expressions of the plan.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

MIN_MEMORY_MIB = 32


def connect(threads: int, memory_mib: int | None, folder: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Returns a connection to a fresh in-memory database of its own.

    `memory_mib` bounds what DuckDB holds (None: DuckDB's default share of the machine); beyond it DuckDB spills to
    `folder`, or to the system's temporary folder. Neither Python variables nor extensions can be reached by name from
    SQL, so a definition reads only what the plan gives it.
    """
    import duckdb

    assert threads >= 1
    spill = folder if folder is not None else Path(tempfile.gettempdir()) / "dropless-spill"
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "allow_community_extensions": False,
        "python_enable_replacements": False,
        "preserve_insertion_order": True,  # L9: reading order survives every query.
        "temp_directory": str(spill),
    }
    if memory_mib is not None:
        config["memory_limit"] = f"{max(memory_mib, MIN_MEMORY_MIB)}MiB"  # L11
    con = duckdb.connect(":memory:", config=config)
    con.execute("SET GLOBAL TimeZone = 'UTC'")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = false")  # It would stand among what commands print.
    return con


def set_run_started(con: duckdb.DuckDBPyConnection, moment: datetime) -> None:
    """`getvariable('run_started')` is `moment` as a TIMESTAMPTZ on this connection; plans use it for `now()` (L9).

    A moment without zone is in UTC.
    """
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    text = utc.strftime("%Y-%m-%d %H:%M:%S.%f+00")
    con.execute(f"SET VARIABLE run_started = TIMESTAMPTZ '{text}'")
