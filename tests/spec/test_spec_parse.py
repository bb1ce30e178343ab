"""Definitions: what they mean, and every mistake at its line (L12)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from definitions import BASE

from dropless.errors import DefinitionError, Place
from dropless.spec.model import Budget, CheckSpec, EventTime, Settings, Slo
from dropless.spec.parse import parse

WHOLE = """\
pipeline: shop
sources:
  orders:
    thing: {path: "in/${ENV:-dev}", rename: {A: a}}
    contract: {path: c.odcs.yaml, schema: orders}
    drift: quarantine
    event_time: {column: at, lateness: 30s}
  users:
    other: {path: users}
    event_time: seen
transforms:
  totals: |
    SELECT customer, sum(amount) AS total
    FROM lines GROUP BY customer
  lines: SELECT * FROM orders
  scored: {python: "score.py:score", input: lines, columns: {score: DOUBLE}}
  same: {sql: SELECT * FROM lines}
checks:
  lines:
    - {name: positive, row: "amount > 0"}
    - {name: enough, count: {min: 1, max: 10}}
    - {name: once, unique: [customer, at], on_fail: quarantine}
    - {name: filled, null_rate: {column: customer, max: 0.01}, on_fail: warn}
    - {name: recent, range: {column: at, min: 2024-01-01}}
    - {name: known, references: {column: customer, relation: users, key: id}}
    - {name: few, sql: "SELECT count(*) FROM lines WHERE amount > 100", must_be_less_than: 5}
    - {name: mean, sql: avg(amount), must_be_between: [1, 2]}
sinks:
  lake: {from: lines, file: {path: out}, mode: append}
  totals: {from: totals, table: {path: t, url: "${URL:-x}"}, mode: upsert, key: [customer], order_by: [at]}
max_dead_letters: 5%
slo: {freshness: 2m, completeness: 99.9}
settings: {workers: 2, epoch_bytes: 1MiB}
"""


def test_definition_becomes_the_model(read: Any, tmp_path: Path) -> None:
    (tmp_path / "c.odcs.yaml").write_text("kind: DataContract\n")
    (tmp_path / "score.py").write_text("def score(rows):\n    return rows\n")
    parsed = read(WHOLE)
    assert parsed.problems == ()
    (spec,) = parsed.specs
    orders = spec.sources["orders"]
    assert (orders.connector, orders.config.path, orders.config.rename) == ("thing", "in/dev", {"A": "a"})
    assert (orders.contract, orders.contract_schema, orders.drift) == (tmp_path / "c.odcs.yaml", "orders", "quarantine")
    assert orders.event_time == EventTime("at", 30.0)
    assert spec.sources["users"].event_time == EventTime("seen")
    assert list(spec.transforms) == ["totals", "lines", "scored", "same"]
    scored = spec.transforms["scored"]
    assert (scored.python, scored.input, scored.columns) == ("score.py:score", "lines", {"score": "DOUBLE"})
    assert spec.transforms["same"].sql == "SELECT * FROM lines"
    totals = spec.sinks["totals"]
    assert (totals.relation, totals.mode, totals.key, totals.order_by) == ("totals", "upsert", ("customer",), ("at",))
    assert spec.max_dead_letters == Budget(share=0.05)
    assert spec.slo == Slo(120.0, 99.9)
    assert spec.settings == Settings(workers=2, epoch_bytes=1 << 20)
    assert spec.checks["lines"] == (
        CheckSpec("positive", "lines", "quarantine", row="amount > 0"),
        CheckSpec("enough", "lines", "stop", batch="count", arguments={"min": 1, "max": 10}),
        CheckSpec("once", "lines", "quarantine", batch="unique", arguments={"columns": ("customer", "at")}),
        CheckSpec("filled", "lines", "warn", batch="null_rate", arguments={"column": "customer", "max": 0.01}),
        CheckSpec("recent", "lines", "stop", batch="range", arguments={"column": "at", "min": "2024-01-01"}),
        CheckSpec(
            "known",
            "lines",
            "stop",
            batch="references",
            arguments={"columns": ("customer",), "relation": "users", "key": ("id",)},
        ),
        CheckSpec(
            "few",
            "lines",
            "stop",
            batch="sql",
            arguments={
                "query": "SELECT count(*) FROM lines WHERE amount > 100",
                "object": "lines",
                "must_be_less_than": 5,
            },
        ),
        CheckSpec(
            "mean",
            "lines",
            "stop",
            batch="sql",
            arguments={
                "query": 'SELECT (avg(amount)\n) FROM "lines"',
                "object": "lines",
                "must_be_between": (1, 2),
            },
        ),
    )


def test_everything_knows_its_line(read: Any) -> None:
    (spec,) = read(WHOLE).specs
    assert spec.place("sources", "orders", "thing", "path") == Place("p.yaml", 4, "sources.orders.thing.path")
    assert spec.place("transforms", "totals").line == 12
    assert spec.place("transforms", "totals", "sql").line == 13
    assert spec.place("transforms", "lines", "sql").line == 15
    assert spec.place("sinks", "lake", "mode", "deeper").line == 29


def test_row_of_a_check_is_placed_on_its_first_line(read: Any) -> None:
    text = BASE + "checks:\n  lines:\n    - name: n\n      row: |\n        a > 0\n        AND b > 0\n"
    (spec,) = read(text).specs
    assert spec.places["checks", "lines", 0, "row"].line == 13


# ---------------------------------------------------------------- mistakes

SINK = "  out: {from: lines, table: {path: out}, mode: append}\n"
MISTAKES = [
    ("sources:\n  orders:\n    thing: {path: in}\n", "", [("missing_field", 1)]),
    ("transforms:", "transfroms:", [("unknown_field", 5), ("unknown_relation", 8)]),
    ("pipeline: shop", "pipeline: my shop", [("bad_name", 1)]),
    ("pipeline: shop", "pipeline: [shop]", [("wrong_type", 1)]),
    ("thing:", "thnig:", [("unknown_connector", 4)]),
    ("thing:", "broken:", [("connector_unavailable", 4)]),
    ("    thing: {path: in}\n", "    thing: {path: in}\n    other: {path: in}\n", [("two_connectors", 5)]),
    ("    thing: {path: in}\n", "    drift: fail\n", [("missing_connector", 3)]),
    ("    thing: {path: in}\n", "    in.csv\n", [("wrong_type", 3)]),
    ("{path: in}", "{pth: in}", [("unknown_field", 4)]),
    ("{path: in}", "{path: in, room: big}", [("wrong_type", 4)]),
    ("{path: in}", "{path: '${GONE}'}", [("missing_variable", 4)]),
    ("{path: in}", "{path: in}\n    contract: c.yaml", [("contract_not_found", 5)]),
    ("{path: in}", "{path: in}\n    contract: {schema: s}", [("missing_field", 5)]),
    ("{path: in}", "{path: in}\n    drift: ingore", [("bad_value", 5)]),
    ("{path: in}", "{path: in}\n    contarct: c.yaml", [("unknown_field", 5)]),
    ("{path: in}", "{path: in}\n    event_time: {column: at, lateness: 30}", [("wrong_type", 5)]),
    ("{path: in}", "{path: in}\n    event_time: {lateness: 30s}", [("missing_field", 5)]),
    ("  lines: SELECT * FROM orders\n", "  lines: 5\n", [("wrong_type", 6)]),
    ("  lines: SELECT * FROM orders\n", "  lines: ' '\n", [("bad_value", 6)]),
    ("  lines: SELECT * FROM orders\n", "  lines: {python: 'x.py:f', input: orders}\n", [("function_not_found", 6)]),
    ("SELECT * FROM orders", "{python: x, input: no}", [("function_not_found", 6), ("unknown_relation", 6)]),
    ("  lines: SELECT * FROM orders\n", "  lines: {python: 'm:f'}\n", [("missing_field", 6)]),
    ("  lines:", "  Orders: SELECT 1\n  lines:", [("name_clash", 6)]),
    ("from: lines", "form: lines", [("unknown_field", 8)]),
    ("from: lines", "from: linse", [("unknown_relation", 8)]),
    ("from: lines, ", "", [("missing_field", 8)]),
    ("mode: append", "mode: upsert", [("missing_key", 8)]),
    ("mode: append", "mode: apend", [("bad_value", 8)]),
    (", mode: append", "", [("missing_field", 8)]),
    ("table: {path: out}, mode: append", "file: {path: out}, mode: upsert, key: [a]", [("mode_not_offered", 8)]),
    ("mode: append", "mode: upsert, key: []", [("bad_value", 8)]),
    ("mode: append", "mode: upsert, key: [a, a]", [("bad_value", 8)]),
    ("mode: append", "mode: upsert, key: a", [("wrong_type", 8)]),
    ("mode: append", "mode: append, key: [a]", [("bad_value", 8)]),
    (SINK, SINK + "  OUT: {from: lines, table: {path: o}, mode: append}\n", [("name_clash", 9)]),
    (SINK, SINK + "max_dead_letters: many\n", [("wrong_type", 9)]),
    (SINK, SINK + "max_dead_letters: 500%\n", [("wrong_type", 9)]),
    (SINK, SINK + "slo: {freshness: soon}\n", [("wrong_type", 9)]),
    (SINK, SINK + "slo: {completeness: 101}\n", [("bad_value", 9)]),
    (SINK, SINK + "settings: {wrokers: 2}\n", [("unknown_field", 9)]),
    (SINK, SINK + "settings: {workers: -1}\n", [("bad_value", 9)]),
    (SINK, SINK + "checks: {linse: [{name: n, row: a > 0}]}\n", [("unknown_relation", 9)]),
    (SINK, SINK + "checks: {lines: {name: n, row: a > 0}}\n", [("wrong_type", 9)]),
]

CHECKS = [
    ("{name: n}", "bad_value"),
    ("{row: a > 0}", "missing_field"),
    ("{name: n, row: a, count: {min: 1}}", "bad_value"),
    ("{name: n, row: ' '}", "bad_value"),
    ("{name: n, row: a > 0, on_fail: sotp}", "bad_value"),
    ("{name: n, row: a > 0, must_be: 1}", "bad_value"),
    ("{name: n, count: {min: 1}, on_fail: quarantine}", "bad_value"),
    ("{name: n, count: {}}", "missing_field"),
    ("{name: n, count: {min: 2, max: 1}}", "bad_value"),
    ("{name: n, count: {min: some}}", "wrong_type"),
    ("{name: n, count: 3}", "wrong_type"),
    ("{name: n, unique: a}", "wrong_type"),
    ("{name: n, null_rate: {column: a, max: 5}}", "bad_value"),
    ("{name: n, null_rate: {column: a}}", "missing_field"),
    ("{name: n, range: {min: 5}}", "missing_field"),
    ("{name: n, references: {column: a, relation: nowhere, key: b}}", "unknown_relation"),
    ("{name: n, references: {columns: [a, b], relation: orders, key: b}}", "bad_value"),
    ("{name: n, references: {relation: orders, key: b}}", "missing_field"),
    ("{name: n, sql: count(*)}", "bad_value"),
    ("{name: n, sql: count(*), must_be: 1, must_not_be: 2}", "bad_value"),
    ("{name: n, sql: count(*), must_be_between: [2, 1]}", "bad_value"),
    ("{name: n, sql: count(*), must_be_less_than: many}", "wrong_type"),
    ("{name: n, rwo: a > 0}", "unknown_field"),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_mistake_is_named_at_its_line(problems: Any, old: str, new: str, expected: list[tuple[str, int]]) -> None:
    assert problems(BASE) == []
    assert old in BASE
    assert problems(BASE.replace(old, new)) == expected


@pytest.mark.parametrize(("check", "code"), CHECKS)
def test_mistake_in_a_check_is_named(problems: Any, check: str, code: str) -> None:
    found = problems(BASE + f"checks:\n  lines:\n    - {check}\n")
    assert code in [c for c, _ in found]
    assert {line for _, line in found} == {11}


def test_two_checks_of_a_relation_may_not_share_a_name(problems: Any) -> None:
    text = BASE + "checks:\n  lines:\n    - {name: n, row: a > 0}\n    - {name: n, row: b > 0}\n"
    assert problems(text) == [("name_clash", 10)]


def test_all_mistakes_are_named_together_with_what_was_meant(read: Any, tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text("kind: DataContract\n")
    text = (
        BASE.replace("{path: in}", "{pth: in}\n    contract: order.yaml")
        .replace("from: lines", "form: lines")
        .replace("mode: append", "mode: upsert")
    )
    parsed = read(text)
    assert [(p.code, p.where.line, p.hint) for p in parsed.problems] == [
        ("spec.unknown_field", 4, 'did you mean "path"?'),
        ("spec.contract_not_found", 5, 'did you mean "orders.yaml"?'),
        ("spec.unknown_field", 9, 'did you mean "from"?'),
        ("spec.missing_key", 9, "add key: [column, ...], the columns that tell rows apart"),
    ]
    # What was meant is taken as meant, so that the planner can look at the rest.
    (spec,) = parsed.specs
    assert (spec.sources["orders"].config.path, spec.sinks["out"].relation) == ("in", "lines")
    with pytest.raises(DefinitionError) as caught:
        parsed.require()
    assert len(caught.value.problems) == 4


def test_secrets_appear_in_no_message_and_no_repr(read: Any) -> None:
    text = BASE.replace("{path: in}", "{path: in, url: '${URL}', tokens: '${URL}', batch: '${URL}'}")
    parsed = read(text, {"URL": "hunter2"})
    assert [p.code for p in parsed.problems] == ["spec.wrong_type", "spec.wrong_type"]
    good = read(BASE.replace("{path: in}", "{path: in, url: '${URL}'}"), {"URL": "hunter2"})
    assert good.specs[0].sources["orders"].config.url.reveal() == "hunter2"
    assert "hunter2" not in repr(parsed) + repr(good) + "".join(map(str, parsed.problems))


def test_number_from_a_variable_serves_as_text_where_text_is_meant(read: Any) -> None:
    text = BASE.replace("{path: in}", "{path: '${P}', url: '${P}', batch: '${P}'}")
    parsed = read(text, {"P": "007"})
    assert parsed.problems == ()
    config = parsed.specs[0].sources["orders"].config
    assert (config.path, config.url.reveal(), config.batch) == ("007", "007", 7)
    plain = BASE.replace("{path: in}", "\n      path: ${P}\n      batch: ${P}")
    assert read(plain, {"P": "007"}).specs[0].sources["orders"].config == type(config)(path="007", batch=7)


def test_unquoted_variable_within_braces_is_explained(read: Any) -> None:
    (problem,) = read(BASE.replace("{path: in}", "{path: ${P}}")).problems
    assert (problem.code, problem.where.line, problem.hint) == ("spec.yaml", 4, "put a value with ${...} in quotes")


# ---------------------------------------------------------------- files


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    parsed = parse(tmp_path / "gone.yaml", {})
    assert [(p.code, p.where) for p in parsed.problems] == [("spec.not_found", Place(str(tmp_path / "gone.yaml"), 1))]
    assert parsed.specs == ()


def test_folder_gives_every_file_with_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BASE)
    (tmp_path / "b.yml").write_text(BASE.replace("pipeline: shop", "pipeline: second"))
    (tmp_path / "other.yaml").write_text("kind: DataContract\n")
    (tmp_path / "notes.txt").write_text("pipeline: no\n")
    parsed = parse(tmp_path, {})
    assert [s.name for s in parsed.specs] == ["shop", "second"]
    assert parsed.problems == ()
    assert parsed.specs[0].folder == tmp_path


def test_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    assert [p.code for p in parse(tmp_path, {}).problems] == ["spec.no_pipeline"]


def test_folder_reports_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BASE)
    (tmp_path / "b.yaml").write_text("pipeline: [\n")
    assert [p.code for p in parse(tmp_path, {}).problems] == ["spec.yaml"]


def test_two_pipelines_of_a_folder_may_not_share_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BASE)
    (tmp_path / "b.yaml").write_text(BASE.replace("pipeline: shop", "pipeline: Shop"))
    assert [p.code for p in parse(tmp_path, {}).problems] == ["spec.name_clash"]


def test_definition_that_is_no_mapping_is_refused(problems: Any) -> None:
    assert problems("- a\n- b\n") == [("wrong_type", 1)]


@pytest.mark.parametrize("text", ["pipeline: x\nsources:\nsinks:\n", "pipeline: x\nsources: {}\nsinks: {}\n"])
def test_definition_needs_a_source_and_a_sink(problems: Any, text: str) -> None:
    assert problems(text) == [("missing_field", 2), ("missing_field", 3)]


# ---------------------------------------------------------------- version


def version(read: Any, text: str, env: dict[str, str] | None = None) -> str:
    (spec,) = read(text, env).specs
    return str(spec.version)


def test_version_does_not_depend_on_comments_layout_or_environment(read: Any) -> None:
    text = BASE.replace("{path: in}", '{path: "${P:-in}"}')
    loose = "# A comment.\n" + text.replace(
        "{from: lines, table: {path: out}, mode: append}",
        "\n    mode: append\n    from: lines\n    table:\n      path: out  # here\n",
    )
    assert version(read, text) == version(read, loose) == version(read, text, {"P": "elsewhere"})


def test_version_depends_on_what_is_said(read: Any) -> None:
    assert version(read, BASE) != version(read, BASE.replace("SELECT *", "SELECT 1, *"))
    assert version(read, BASE) != version(read, BASE.replace("pipeline: shop", "pipeline: shops"))


def test_version_leaves_secrets_out(read: Any) -> None:
    one, two = (BASE.replace("{path: in}", f"{{path: in, url: {secret}}}") for secret in ("pw1", "pw2"))
    assert version(read, one) == version(read, two)
    assert version(read, one) != version(read, BASE)


def test_version_follows_contracts_and_functions(read: Any, tmp_path: Path) -> None:
    text = BASE.replace("{path: in}", "{path: in}\n    contract: c.yaml").replace(
        "lines: SELECT * FROM orders", "lines: {python: 'f.py:f', input: orders}"
    )
    contract, function = tmp_path / "c.yaml", tmp_path / "f.py"
    contract.write_text("a: 1\n")
    function.write_text("def f(rows): return rows\n")
    first = version(read, text)
    contract.write_text("# The same.\na:   1\n")
    assert version(read, text) == first
    contract.write_text("a: 2\n")
    second = version(read, text)
    function.write_text("def f(rows): return rows.slice(1)\n")
    assert len({first, second, version(read, text)}) == 3
