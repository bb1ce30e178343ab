"""Checks as operators: row conditions behind a relation, uniqueness with state, batch checks over a run's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
from sqlglot import exp

from dropless.contract.model import BatchRule, Contract, Rule, UniqueRule
from dropless.errors import Place, Problem, problem
from dropless.plan import ir
from dropless.plan.bind import message
from dropless.plan.draft import Draft, Refuse, Rel, Text, did_you_mean
from dropless.plan.expr import sql
from dropless.plan.parse import parse_condition, parse_query, relations_in
from dropless.plan.scope import Scope, Source
from dropless.spec.model import CheckSpec, PipelineSpec


def contract_checks(name: str, contract: Contract | None, rel: Rel, draft: Draft) -> Rel:
    """The source with its contract's uniqueness behind it; the contract's other row rules are judged at intake."""
    if contract is None or not contract.unique:
        return rel
    return draft.add(
        ir.Unique,
        draft.name(name, "unique"),
        [rel],
        rel.columns,
        relation=name,
        where=contract.unique[0].where,
        rules=contract.unique,
    )


def row_checks(spec: PipelineSpec, name: str, rel: Rel, draft: Draft) -> Rel:
    """The relation with its row checks, then its refusing uniqueness checks, behind it."""
    rules: list[Rule] = []
    unique: list[UniqueRule] = []
    for number, check in enumerate(spec.checks.get(name, ())):
        where = spec.place("checks", name, number)
        try:
            if check.row is not None:
                row_where = spec.places.get(("checks", name, number, "row")) or where
                rules.append(_row_rule(check, rel, draft, row_where))
            elif check.batch == "unique" and check.on_fail == "quarantine":
                columns = _known(check, check.arguments["columns"], rel, where)
                unique.append(UniqueRule(check.name, columns, check.on_fail, where))
            else:
                continue
            if check.on_fail == "quarantine" and rel.changes == "updating":
                raise Refuse(
                    problem(
                        "plan.check_on_updating",
                        f'check "{check.name}" cannot quarantine: a row of "{name}" changes as records come',
                        where,
                        "take on_fail: warn or stop, or check a relation before the aggregate",
                    )
                )
        except Refuse as refused:
            draft.problems += refused.problems
    if rules:
        rel = draft.add(
            ir.Check,
            draft.name(f"check:{name}", ""),
            [rel],
            rel.columns,
            relation=name,
            where=rules[0].where,
            rules=tuple(rules),
        )
    if unique:
        keys = [frozenset(u.columns) for u in unique if all(rel.column(c).required for c in u.columns)]
        rel = draft.add(
            ir.Unique,
            draft.name(f"unique:{name}", ""),
            [rel],
            rel.columns,
            relation=name,
            where=unique[0].where,
            unique=[*rel.keys, *keys],
            rules=tuple(unique),
        )
    return rel


def _row_rule(check: CheckSpec, rel: Rel, draft: Draft, where: Place | None) -> Rule:
    assert check.row is not None
    text = Text.of(check.row, where, exact=True)
    node = parse_condition(text, draft.binder)
    if next(node.find_all(exp.Query, exp.Window, exp.Unnest, exp.Explode), None) is not None:
        raise Refuse(
            problem(
                "plan.unsupported",
                f'check "{check.name}" looks beyond its row',
                text.where,
                "a row check is a condition on one row; write a batch check (count, unique, references, sql)",
            )
        )
    scope = Scope([Source(check.relation, rel.columns, {c.name: c.name for c in rel.columns})], text)
    resolved = scope.resolve(node)
    if scope.problems:
        raise Refuse(*dict.fromkeys(scope.problems))
    condition = sql(resolved)
    try:
        (kind,) = draft.binder.types([("in0", rel.columns)], [condition])
    except duckdb.Error as error:
        raise Refuse(problem("plan.type", f'check "{check.name}": {message(error)[0]}', text.where)) from error
    if kind != "BOOLEAN":
        said = f'check "{check.name}" is {kind}, not a condition: {check.row.strip()}'
        raise Refuse(problem("plan.check_not_boolean", said, text.where, "compare it with something"))
    return Rule(check.name, None, condition, check.on_fail, where=where)


def _known(check: CheckSpec | BatchRule, given: object, rel: Rel, where: Place | None) -> tuple[str, ...]:
    """The columns under the relation's own spelling."""
    names = (given,) if isinstance(given, str) else tuple(str(n) for n in given)  # type: ignore[attr-defined]
    folded = {c.name.lower(): c.name for c in rel.columns}
    problems = [
        problem(
            "plan.unknown_column",
            f'check "{check.name}" names column "{n}", which is not there',
            where,
            did_you_mean(n, rel.names()),
        )
        for n in names
        if n.lower() not in folded
    ]
    if problems:
        raise Refuse(*problems)
    return tuple(folded[n.lower()] for n in names)


# ---------------------------------------------------------------- batch checks


def add_checks(
    spec: PipelineSpec,
    draft: Draft,
    ends: Mapping[str, Rel],
    unknown: set[str],
    contracts: Mapping[str, Contract | None],
) -> None:
    """A collection for every relation with batch checks; the relations they refer to are inputs beside it."""
    for name, rel in ends.items():
        contract = contracts.get(name)
        wanted = list(contract.batch) if contract is not None else []
        for number, check in enumerate(spec.checks.get(name, ())):
            if check.batch is None or (check.batch == "unique" and check.on_fail == "quarantine"):
                continue
            where = spec.place("checks", name, number)
            wanted.append(BatchRule(check.name, check.batch, dict(check.arguments), check.on_fail, where))
        rules: list[BatchRule] = []
        others: dict[str, Rel] = {}
        for rule in wanted:
            try:
                rules.append(_batch_rule(rule, name, rel, draft, ends, unknown, others))
            except Refuse as refused:
                draft.problems += refused.problems
        if rules:
            draft.add(
                ir.Collect,
                draft.name(f"batch:{name}", ""),
                [rel, *others.values()],
                rel.columns,
                relation=name,
                where=rules[0].where,
                scope="run",
                rules=tuple(rules),
            )


def _batch_rule(
    rule: BatchRule,
    name: str,
    rel: Rel,
    draft: Draft,
    ends: Mapping[str, Rel],
    unknown: set[str],
    others: dict[str, Rel],
) -> BatchRule:
    arguments: dict[str, Any] = dict(rule.arguments)
    if rule.kind == "sql":
        _query(rule, arguments, name, rel, draft, ends, unknown, others)
    if "column" in arguments:
        (arguments["column"],) = _known(rule, arguments["column"], rel, rule.where)
    if "columns" in arguments:
        arguments["columns"] = _known(rule, arguments["columns"], rel, rule.where)
    if rule.kind == "references":
        other = arguments["relation"]
        if other in unknown:
            return rule  # What is wrong with the relation has been said.
        if other not in ends:
            raise Refuse(_unknown(rule, other, ends))
        arguments["key"] = _known(rule, arguments["key"], ends[other], rule.where)
        others[other] = ends[other]
    return BatchRule(rule.name, rule.kind, arguments, rule.action, rule.where)


def _unknown(rule: BatchRule, name: str, ends: Mapping[str, Rel]) -> Problem:
    said = f'check "{rule.name}" refers to "{name}", which names nothing'
    return problem("plan.unknown_relation", said, rule.where, did_you_mean(name, ends))


def _query(
    rule: BatchRule,
    arguments: dict[str, Any],
    name: str,
    rel: Rel,
    draft: Draft,
    ends: Mapping[str, Rel],
    unknown: set[str],
    others: dict[str, Rel],
) -> None:
    text = Text.of(str(arguments["query"]), rule.where, exact=True)
    tree = parse_query(text, draft.binder)
    own = str(arguments.get("object", name))
    for table in relations_in(tree):
        found = next((n for n in ends if n.lower() == table.name.lower()), None)
        if table.name.lower() == own.lower() or found == name:
            continue
        if found is None:
            if table.name in unknown:
                return
            raise Refuse(
                problem(
                    "plan.unknown_relation",
                    f'check "{rule.name}" reads "{table.name}", which names nothing',
                    text.at(table),
                    did_you_mean(table.name, ends),
                )
            )
        others[found] = ends[found]
    query = str(tree.sql(dialect="duckdb", comments=False))
    draft.binder.table(own, rel.columns)
    try:
        columns = draft.binder.describe(query)
    except duckdb.Error as error:
        said, line = message(error)
        raise Refuse(problem("plan.type", f'check "{rule.name}": {said}', text.line(line))) from error
    finally:
        if own in ends:
            draft.binder.table(own, ends[own].columns)
    if len(columns) != 1:
        raise Refuse(
            problem(
                "plan.type", f'check "{rule.name}" must give one value, it gives {len(columns)} columns', text.where
            )
        )
    arguments["query"] = query
