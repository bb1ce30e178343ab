"""The edges into sinks: whether the mode fits what the relation gives out, and which state it needs before it."""

from __future__ import annotations

from collections.abc import Mapping

from dropless.errors import Problem, problem
from dropless.plan import ir
from dropless.plan.draft import Draft, Refuse, Rel, did_you_mean, ordered
from dropless.spec.model import PipelineSpec, SinkSpec


def add_sinks(spec: PipelineSpec, draft: Draft, ends: Mapping[str, Rel], unknown: set[str]) -> None:
    """A Deliver for every sink whose relation is known and fits."""
    for name, sink in spec.sinks.items():
        rel = ends.get(sink.relation)
        if rel is None or sink.relation in unknown:
            continue
        try:
            _add_sink(spec, name, sink, rel, draft)
        except Refuse as refused:
            draft.problems += refused.problems


def _add_sink(spec: PipelineSpec, name: str, sink: SinkSpec, rel: Rel, draft: Draft) -> None:
    problems = _unknown_columns(spec, name, sink, rel)
    if problems:
        raise Refuse(*problems)
    key = _spelled(sink.key, rel)
    where = spec.place("sinks", name)
    match sink.mode:
        case "append":
            _refuse_append(spec, name, sink, rel)
        case "upsert":
            rel = _by_key(spec, name, sink, key, rel, draft)
        case "overwrite":
            rel = draft.add(
                ir.Collect,
                draft.name(f"collect:{name}", ""),
                [rel],
                rel.columns,
                relation=sink.relation,
                where=where,
                scope="pipeline",
                sink=name,
            )
    draft.add(
        ir.Deliver,
        draft.name(f"deliver:{name}", ""),
        [rel],
        rel.columns,
        relation=sink.relation,
        where=where,
        sink=name,
        mode=sink.mode,
        sink_key=key,
    )


def _spelled(names: tuple[str, ...], rel: Rel) -> tuple[str, ...]:
    """The names as the relation spells them."""
    folded = {c.name.lower(): c.name for c in rel.columns}
    return tuple(folded[n.lower()] for n in names)


def _unknown_columns(spec: PipelineSpec, name: str, sink: SinkSpec, rel: Rel) -> list[Problem]:
    known = {c.name.lower() for c in rel.columns}
    partition = getattr(sink.config, "partition_by", None) or ()
    given: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        ("key", (name, "key"), sink.key),
        ("order_by", (name, "order_by"), sink.order_by),
    ]
    given.append(("partition_by", (name, sink.connector, "partition_by"), tuple(partition)))
    found = []
    for setting, path, names in given:
        for column in names:
            if column.lower() not in known:
                said = f'{setting} of sink "{name}" names "{column}", which "{sink.relation}" does not have'
                found.append(
                    problem(
                        "plan.key_unknown_column", said, spec.place("sinks", *path), did_you_mean(column, rel.names())
                    )
                )
    return found


def _refuse_append(spec: PipelineSpec, name: str, sink: SinkSpec, rel: Rel) -> None:
    where = spec.place("sinks", name, "mode")
    if rel.table:
        said = f'sink "{name}" appends "{sink.relation}", which is made of tables alone and read whole in every run'
        hint = "take mode: overwrite or upsert, or read the table as a log along a column that grows"
        raise Refuse(problem("plan.mode_misfit", said, where, hint))
    if rel.changes == "updating" and not rel.final:
        said = f'sink "{name}" appends "{sink.relation}", whose rows change as records come'
        raise Refuse(problem("plan.mode_misfit", said, where, f"take mode: overwrite, or {_upsert_hint(rel)}"))


def _upsert_hint(rel: Rel) -> str:
    keys = [ordered(k, rel.columns) for k in rel.keys if k]
    return f"mode: upsert with key: [{', '.join(keys[0])}]" if keys else "give the relation a key and take mode: upsert"


def _by_key(spec: PipelineSpec, name: str, sink: SinkSpec, key: tuple[str, ...], rel: Rel, draft: Draft) -> Rel:
    """The relation as the upsert sink needs it: one row for each key at the end of an epoch."""
    if not key:
        return rel  # The parser has said that upsert needs a key.
    if any(k <= set(key) for k in rel.keys):
        return rel
    if rel.changes == "updating":
        said = f'key [{", ".join(key)}] of sink "{name}" does not determine a row of "{sink.relation}"'
        keys = [ordered(k, rel.columns) for k in rel.keys if k]
        hint = (
            f"its rows are determined by [{', '.join(keys[0])}]"
            if keys
            else "no key of the relation is known; take mode: overwrite"
        )
        raise Refuse(problem("plan.mode_misfit", said, spec.place("sinks", name, "key"), hint))
    return draft.add(
        ir.Last,
        draft.name(f"last:{name}", ""),
        [rel],
        rel.columns,
        relation=sink.relation,
        where=spec.place("sinks", name),
        changes="updating",
        unique=[frozenset(key)],
        order_by=_spelled(sink.order_by, rel),
    )


def refuse_recomputed(spec: PipelineSpec, draft: Draft, ends: Mapping[str, Rel]) -> None:
    """Refuses every clause that needs all rows at once above a sink that is not overwritten."""
    plan = ir.Plan(draft.operators, {})
    for found in draft.recomputed:
        if draft.operators[found.operator].table:
            continue
        wrong = []
        for name, sink in spec.sinks.items():
            end = ends.get(sink.relation)
            if end is not None and sink.mode != "overwrite":
                above = plan.ancestors(end.operator) | {end.operator}
                wrong += [name] if found.operator in above else []
        if wrong:
            relation = draft.operators[found.operator].relation
            listed = ", ".join(f'"{w}"' for w in sorted(wrong))
            said = f'{found.clause} needs all rows of "{relation}" at once, but sink {listed} is not overwritten'
            hint = "take mode: overwrite for the sink, or partition, join or group by columns so that keys can be kept"
            draft.problems.append(problem("plan.not_incremental", said, found.where, hint))
