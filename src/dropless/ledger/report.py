"""What commands print about runs and epochs: sums over stored facts, verified again while they are added up (L6)."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from dropless.errors import DefinitionError, problem
from dropless.ledger import derive
from dropless.ledger.commit import load
from dropless.ledger.database import Connection
from dropless.ledger.records import LetterFile, OperatorCount, PathCount, Range, Run
from dropless.protocol.fates import unbalanced

_UNDONE = "EXISTS (SELECT 1 FROM undone u WHERE u.epoch = e.id)"
_EPOCH_STATUS = f"CASE WHEN {_UNDONE} THEN 'undone' ELSE e.status END"
_RUN_STATUS = (
    f"CASE WHEN EXISTS (SELECT 1 FROM epochs e WHERE e.run = runs.id AND {_UNDONE}) THEN 'undone' ELSE status END"
)


def runs(con: Connection, pipeline: str | None, limit: int, before: int | None) -> list[Run]:
    rows = con.execute(
        f"SELECT id, pipeline, coalesce(purpose, kind), definition, gated, {_RUN_STATUS}, reason, started, finished,"
        " details FROM runs"
        " WHERE (CAST(:pipeline AS TEXT) IS NULL OR pipeline = :pipeline)"
        " AND (CAST(:before AS BIGINT) IS NULL OR id < :before)"
        " ORDER BY id DESC LIMIT :limit",
        {"pipeline": pipeline, "before": before, "limit": limit},
    )
    return [derive.to_run(row) for row in rows]


def epochs(con: Connection, pipeline: str, run: int | None, limit: int, before: int | None) -> list[dict[str, Any]]:
    rows = con.execute(
        f"""
        SELECT e.number, e.run, {_EPOCH_STATUS}, e.committed, e.definition,
               (SELECT coalesce(sum(records), 0) FROM ranges WHERE epoch = e.id),
               (SELECT coalesce(sum(count), 0) FROM letter_files WHERE epoch = e.id AND kind = 'letters'),
               (SELECT count(*) FROM tokens WHERE epoch = e.id AND published IS NULL)
        FROM epochs e
        WHERE e.pipeline = :pipeline AND (CAST(:run AS BIGINT) IS NULL OR e.run = :run)
          AND (CAST(:before AS BIGINT) IS NULL OR e.number < :before)
        ORDER BY e.number DESC LIMIT :limit
        """,
        {"pipeline": pipeline, "run": run, "before": before, "limit": limit},
    )
    keys = ("epoch", "run", "status", "committed", "definition", "read", "dead_letters", "unpublished")
    return [dict(zip(keys, row, strict=True)) for row in rows]


def run_report(con: Connection, pipeline: str, number: int) -> dict[str, Any]:
    """The run's sums. Raises DefinitionError `ledger.no_such_run`."""
    run = derive.run(con, pipeline, number)
    facts = _facts(con, "e.run = ?", number)
    last = con.execute(
        "SELECT contracts, tables FROM epochs WHERE run = ? ORDER BY number DESC LIMIT 1", (number,)
    ).fetchone()
    undone = con.execute(f"SELECT 1 FROM epochs e WHERE e.run = ? AND {_UNDONE} LIMIT 1", (number,)).fetchone()
    return {
        "pipeline": run.pipeline,
        "run": run.id,
        "kind": run.kind,
        "status": "undone" if undone else run.status,
        "reason": run.reason,
        "definition": run.definition,
        "contracts": load(last[0]) if last else {},
        "tables": load(last[1]) if last else {},
        "gated": run.gated,
        "started": run.started,
        "finished": run.finished,
        "details": dict(run.details),
        "epochs": _epoch_counts(con, number),
        **_sums(facts, run.kind),
        "verdicts": _verdicts(con, "e.run = ?", number),
        "dead_letters": _letter_counts(con, "e.run = ?", number),
    }


def epoch_report(con: Connection, pipeline: str, number: int) -> dict[str, Any]:
    """One epoch's facts. Raises DefinitionError `ledger.no_such_run`."""
    row = con.execute(
        f"SELECT e.id, e.run, coalesce(r.purpose, r.kind), {_EPOCH_STATUS}, e.committed, e.definition,"
        " e.contracts, e.resets, e.generation, e.tables"
        " FROM epochs e JOIN runs r ON r.id = e.run WHERE e.pipeline = ? AND e.number = ?",
        (pipeline, number),
    ).fetchone()
    if row is None:
        raise DefinitionError(problem("ledger.no_such_run", f'"{pipeline}" has no epoch {number}'))
    facts = _facts(con, "e.id = ?", row[0])
    ranges = [
        {"source": r.source, "split": r.split, "start": r.start, "next": r.next, "first": r.first, "last": r.last,
         "records": r.records, "digest": r.digest, "finished": r.finished}
        for fact in facts.values() for r in fact.ranges
    ]  # fmt: skip
    tokens = con.execute("SELECT sink, published, parked FROM tokens WHERE epoch = ? ORDER BY sink", (row[0],))
    return {
        "pipeline": pipeline,
        "epoch": number,
        "run": row[1],
        "kind": row[2],
        "status": row[3],
        "committed": row[4],
        "definition": row[5],
        "contracts": load(row[6]),
        "resets": bool(row[7]),
        "generation": row[8],
        "tables": load(row[9]),
        "ranges": ranges,
        "published": {sink: {"at": at, "parked": parked} for sink, at, parked in tokens},
        **_sums(facts, row[2]),
        "verdicts": _verdicts(con, "e.id = ?", row[0]),
        "dead_letters": _letter_counts(con, "e.id = ?", row[0]),
    }


@dataclass
class _Facts:
    """The counts of one epoch, in the shape that `protocol.fates` judges."""

    operators: list[OperatorCount] = field(default_factory=list)
    paths: list[PathCount] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)
    letters: list[LetterFile] = field(default_factory=list)


def _facts(con: Connection, where: str, value: int) -> dict[int, _Facts]:
    found: dict[int, _Facts] = defaultdict(_Facts)
    for key, *row in _of_epochs(
        con,
        "operators",
        "name, kind, rows_in, rows_out, passed, fates, held, released, records",
        where,
        value,
        "ordinal",
    ):
        row[5], row[8] = load(row[5]), load(row[8])
        found[key].operators.append(OperatorCount(*row))
    for key, *row in _of_epochs(
        con, "paths", "source, sink, read, fates, held, released", where, value, "source, x.sink"
    ):
        row[3] = load(row[3])
        found[key].paths.append(PathCount(*row))
    for key, path, count, kind in _of_epochs(con, "letter_files", "path, count, kind", where, value, "id"):
        found[key].letters.append(LetterFile(path, count, kind))
    ranges = con.execute(
        "SELECT e.id, s.source, s.split, r.start, r.next, r.first, r.last, r.records, r.digest, r.finished"
        " FROM ranges r"
        f" JOIN epochs e ON e.id = r.epoch JOIN splits s ON s.id = r.split WHERE {where} ORDER BY r.id",
        (value,),
    )
    for key, *row in ranges:
        row[2], row[3], row[8] = load(row[2]), load(row[3]), bool(row[8])
        found[key].ranges.append(Range(*row))
    return found


def _of_epochs(con: Connection, table: str, columns: str, where: str, value: int, order: str) -> list[tuple[Any, ...]]:
    chosen = ", ".join(f"x.{c.strip()}" for c in columns.split(","))
    return con.execute(
        f"SELECT e.id, {chosen} FROM {table} x JOIN epochs e ON e.id = x.epoch WHERE {where}"
        f" ORDER BY e.number, x.{order}",
        (value,),
    ).fetchall()


def _sums(facts: dict[int, _Facts], kind: str) -> dict[str, Any]:
    """Counts added over the epochs, and `balanced`: each epoch's equalities hold for what is stored."""
    problems = [sentence for fact in facts.values() for sentence in unbalanced(fact, from_ranges=kind != "replay")]
    operators: dict[str, dict[str, Any]] = {}
    paths: dict[tuple[str, str], dict[str, Any]] = {}
    sources: dict[str, Counter[str]] = defaultdict(lambda: Counter(read=0, quarantined=0))
    for fact in facts.values():
        for o in fact.operators:
            at = operators.setdefault(
                o.name,
                {
                    "name": o.name,
                    "kind": o.kind,
                    "in": 0,
                    "out": 0,
                    "passed": 0,
                    "fates": Counter(),
                    "held": 0,
                    "released": 0,
                },
            )
            _add(
                at,
                o.fates,
                {"in": o.rows_in, "out": o.rows_out, "passed": o.passed, "held": o.held, "released": o.released},
            )
        for p in fact.paths:
            at = paths.setdefault(
                (p.source, p.sink),
                {"source": p.source, "sink": p.sink, "read": 0, "fates": Counter(), "held": 0, "released": 0},
            )
            _add(at, p.fates, {"read": p.read, "held": p.held, "released": p.released})
        for source, counts in _by_source(fact).items():
            sources[source].update(counts)
    sinks: dict[str, Counter[str]] = defaultdict(lambda: Counter(delivered=0, rows=0))
    for (_, sink), path in paths.items():
        sinks[sink]["delivered"] += path["fates"]["delivered"]
    for counted in operators.values():
        if counted["kind"] == "deliver":
            # Source records are not rows: an aggregate folds many records into few rows, a join may multiply them.
            sinks[counted["name"].removeprefix("deliver:")]["rows"] += counted["out"]
    for at in (*operators.values(), *paths.values()):
        at["fates"] = {fate: n for fate, n in at["fates"].items() if n}
    return {
        "balanced": not problems,
        "unbalanced": problems,
        "sources": {name: dict(counts) for name, counts in sorted(sources.items())},
        "sinks": {name: dict(counts) for name, counts in sorted(sinks.items())},
        "operators": list(operators.values()),
        "paths": list(paths.values()),
    }


def _add(at: dict[str, Any], fates: Any, counts: dict[str, int]) -> None:
    at["fates"].update(fates)
    for name, n in counts.items():
        at[name] += n


def _by_source(fact: _Facts) -> dict[str, Counter[str]]:
    """Records read and records that became dead letters, of each source in one epoch."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for p in fact.paths:
        found[p.source]["read"] = max(found[p.source]["read"], p.read)
    for source in {r.source for r in fact.ranges}:
        found[source]["read"] = sum(r.records for r in fact.ranges if r.source == source)
    counted = [o for o in fact.operators if o.records]
    for o in counted:
        for source, counts in o.records.items():
            found[source]["quarantined"] += counts.get("quarantined", 0)
    if not counted:
        for p in fact.paths:
            found[p.source]["quarantined"] = max(found[p.source]["quarantined"], p.fates.get("quarantined", 0))
    return found


def _verdicts(con: Connection, where: str, value: int) -> list[dict[str, Any]]:
    """Summed by relation, rule and action, in the order they were first judged; the detail is the last there is."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for _, relation, rule, action, judged, failed, detail in _of_epochs(
        con, "verdicts", "relation, rule, action, judged, failed, detail", where, value, "ordinal"
    ):
        at = found.setdefault(
            (relation, rule, action),
            {"relation": relation, "rule": rule, "action": action, "judged": 0, "failed": 0, "detail": ""},
        )
        at["judged"] += judged
        at["failed"] += failed
        at["detail"] = detail or at["detail"]
    return list(found.values())


def _epoch_counts(con: Connection, run: int) -> dict[str, Any]:
    row = con.execute(
        """
        SELECT count(*), count(*) FILTER (WHERE status = 'committed'),
               count(*) FILTER (WHERE status = 'held'), count(*) FILTER (WHERE status = 'aborted'),
               min(number), max(number),
               count(*) FILTER (WHERE status = 'committed' AND EXISTS (
                 SELECT 1 FROM tokens WHERE epoch = epochs.id AND published IS NULL))
        FROM epochs WHERE run = ?
        """,
        (run,),
    ).fetchone()
    return dict(zip(("count", "committed", "held", "aborted", "first", "last", "unpublished"), row, strict=True))


def _letter_counts(con: Connection, where: str, value: int) -> dict[str, int]:
    row = con.execute(
        "SELECT coalesce(sum(f.count), 0), coalesce(sum(open), 0), coalesce(sum(claimed), 0),"
        " coalesce(sum(replayed), 0), coalesce(sum(discarded), 0)"
        f" FROM letter_files f JOIN epochs e ON e.id = f.epoch WHERE {where} AND f.kind = 'letters'",
        (value,),
    ).fetchone()
    return dict(zip(("count", "open", "claimed", "replayed", "discarded"), row, strict=True))
