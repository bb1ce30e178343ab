"""The connections of the engine. Laws checked: L9, L11."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from dropless.engine.session import connect, set_run_started


def setting(con: duckdb.DuckDBPyConnection, name: str) -> object:
    return con.sql(f"SELECT current_setting('{name}')").fetchall()[0][0]


def test_connect_uses_utc_whatever_the_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    con = connect(1, 64)
    assert setting(con, "TimeZone") == "UTC"
    assert setting(con.cursor(), "TimeZone") == "UTC"


def test_connect_fetches_no_extensions_and_sees_no_python_variables(tmp_path: Path) -> None:
    con = connect(2, 64, tmp_path)
    hidden = pa.table({"a": [1]})
    assert hidden.num_rows == 1
    with pytest.raises(duckdb.CatalogException):
        con.sql("SELECT * FROM hidden").to_arrow_table()
    assert setting(con, "autoload_known_extensions") is False
    assert setting(con, "autoinstall_known_extensions") is False
    assert setting(con, "threads") == 2


def test_connect_spills_into_the_folder_when_memory_is_short(tmp_path: Path) -> None:
    con = connect(1, 32, tmp_path / "spill")
    sql = "SELECT hash(range) AS h, repeat('x', 100) AS s FROM range(800000) ORDER BY h"
    reader = con.sql(sql).to_arrow_reader(10_000)
    assert sum(batch.num_rows for batch in reader) == 800_000
    assert setting(con, "memory_limit") == "32.0 MiB"
    assert (tmp_path / "spill").exists()


def test_run_started_is_the_moment_given_in_any_zone() -> None:
    con = connect(1, None)
    moment = datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=timezone(timedelta(hours=2)))
    set_run_started(con, moment)
    rows = con.sql("SELECT typeof(getvariable('run_started')), epoch_us(getvariable('run_started'))").fetchall()
    assert rows[0] == ("TIMESTAMP WITH TIME ZONE", int(moment.astimezone(UTC).timestamp()) * 1_000_000 + 250)


def test_connection_prints_no_progress() -> None:
    """DuckDB's bar goes to standard output, where commands print their JSON."""
    with connect(threads=1, memory_mib=64) as con:
        assert con.sql("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]
