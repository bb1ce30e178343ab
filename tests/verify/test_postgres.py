"""Rows in PostgreSQL are compared inside the server; few leave it. Laws checked: L4."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from dropless.connect.inspect import BUCKET_BITS
from dropless.engine.project import load_one
from dropless.engine.run import Options as RunOptions
from dropless.engine.run import run
from dropless.engine.undo import undo
from dropless.verify.verify import Options, verify

from .large import check, damage, make

ROWS = 40_000


def test_three_differing_rows_are_named_and_hardly_more_are_fetched(
    tmp_path: Path, postgres: Any, postgres_database: str
) -> None:
    path = make(tmp_path / "large", postgres.url(postgres_database), ROWS)
    assert run(load_one(path), RunOptions()).status == "succeeded"
    (clean,) = check(path).sinks
    assert (clean.status, clean.fetched, clean.held) == ("agrees", 0, ROWS)
    assert verify(load_one(path), Options(against="ledger")).status == "agrees"
    damage(postgres, postgres_database, ROWS)
    (told,) = check(path).sinks
    assert told.counts == {"missing": 1, "extra": 1, "altered": 1}
    assert told.fetched <= 4 * (ROWS >> BUCKET_BITS) + 100
    assert told.fetched <= 0.02 * ROWS
    by_kind = {d.kind: d for d in told.differences}
    assert by_kind["missing"].expected is not None
    assert by_kind["missing"].expected["id"] == str(ROWS // 2)
    assert {d.split for d in told.differences} == {"events.parquet"}
    assert {d.epoch for d in told.differences} == {1}
    assert verify(load_one(path), Options(against="ledger")).status == "differs"
    assert verify(load_one(path), Options(repair=True)).repaired is not None
    assert check(path).status == "agrees"
    assert verify(load_one(path), Options(against="ledger")).status == "agrees"
    undo(load_one(path), 1)
    assert postgres.execute("SELECT count(*) FROM events", postgres_database) == [(0,)]


@pytest.mark.parametrize("kind", ["jsonb", "json", "text"])
def test_documents_are_compared_as_the_server_keeps_them(
    tmp_path: Path, postgres: Any, postgres_database: str, kind: str
) -> None:
    folder = tmp_path / "docs"
    (folder / "input").mkdir(parents=True)
    document = '{"b": 1.50, "a": [null, "\\u00e9"], "a b": {}}'
    lines = [f'{{"id": {n}, "doc": {document}}}\n' for n in range(50)]
    (folder / "input" / "docs.ndjson").write_text("".join(lines))
    url = postgres.url(postgres_database)
    (folder / "pipeline.yaml").write_text(
        'pipeline: docs\nsources: {docs: {ndjson: {path: "input/*.ndjson"}, contract: docs.yaml}}\n'
        "transforms:\n  kept: SELECT id, doc FROM docs\n"
        f'sinks: {{out: {{from: kept, postgres: {{url: "{url}", table: docs}}, mode: append}}}}\n'
    )
    (folder / "docs.yaml").write_text(
        "apiVersion: v3.1.0\nkind: DataContract\nid: docs\nversion: 1.0.0\nstatus: active\nschema:\n  - name: docs\n"
        "    logicalType: object\n    properties:\n      - {name: id, logicalType: integer}\n"
        '      - {name: doc, logicalType: object, physicalType: "JSON"}\n'
    )
    postgres.execute(f"CREATE TABLE docs (id bigint, doc {kind})", postgres_database)
    path = folder / "pipeline.yaml"
    assert run(load_one(path), RunOptions()).status == "succeeded"
    assert check(path).status == "agrees"
    postgres.execute("""UPDATE docs SET doc = '{"b": 1.51}' WHERE id = 7""", postgres_database)
    (told,) = check(path).sinks
    assert [d.kind for d in told.differences] == ["altered"]
    undo_first = verify(load_one(path), Options(repair=True))
    assert undo_first.repaired is not None
    assert check(path).status == "agrees"
