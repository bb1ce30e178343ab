"""What a campaign came to: a value that is printed as a table, written as JSON and as one HTML page."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from dropless.engine.project import Project
from dropless.prove.arena import Base, Result
from dropless.prove.judge import COUNTED
from dropless.prove.trials import KINDS, MEANINGS

Verdict = Literal["proven", "not proven", "control failed as it must", "control passed"]
MOST_FAILURES = 20


@dataclass(frozen=True)
class SinkLine:
    """One sink: what is promised, how, and what came out."""

    sink: str
    connector: str
    mode: str
    guarantee: str
    mechanism: str
    rows: int
    exact: bool
    wrong: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Certificate:
    """The whole outcome. `trials` that neither killed nor struck are no evidence and are counted as such."""

    pipeline: str
    version: str
    definition: str
    seed: int
    control: bool
    asked: tuple[str, ...]
    asked_kills: int
    made: str
    seconds: float
    read: int
    sample_bytes: int
    letters: int
    trials: int
    kills: int
    without_effect: int
    kinds: dict[str, dict[str, int]]
    points: dict[str, dict[str, int]]
    scenarios: dict[str, int]
    peeks: int
    sinks: tuple[SinkLine, ...]
    wrong: dict[str, int]
    lost_to_power: dict[str, int]
    recovery: dict[str, float]
    failures: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        *,
        project: Project,
        seed: int,
        control: bool,
        asked_kills: int,
        asked: Sequence[str],
        base: Base,
        results: Sequence[Result],
        notes: Sequence[str],
        sample_bytes: int,
        seconds: float,
        version: str,
    ) -> Certificate:
        """The sums of all results."""
        wanted = base.snapshots["run"]
        wrong: Counter[str] = Counter()
        at_sink: dict[str, Counter[str]] = {name: Counter() for name in project.spec.sinks}
        power: Counter[str] = Counter()
        for result in results:
            power.update(result.lost)
            for finding in result.findings:
                wrong[finding.what] += finding.count
                if finding.where.startswith("sink "):
                    at_sink[finding.where.removeprefix("sink ")][finding.what] += finding.count
        reads = [fates.get("read", 0) for fates in wanted.paths.values()]
        promised = {g.sink: g for g in project.guarantees}
        return cls(
            pipeline=project.name,
            version=version,
            definition=project.spec.version,
            seed=seed,
            control=control,
            asked=tuple(asked),
            asked_kills=asked_kills,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            read=max(reads, default=0),
            sample_bytes=sample_bytes,
            letters=len(wanted.letters),
            trials=len(results),
            kills=sum(r.kills for r in results),
            without_effect=sum(not (r.kills or r.struck) for r in results),
            kinds=_by_kind(results),
            points=_by_point(results),
            scenarios=dict(Counter(r.trial.scenario for r in results)),
            peeks=sum(r.peeks for r in results),
            sinks=tuple(
                SinkLine(
                    name,
                    sink.connector,
                    sink.mode,
                    str(promised[name].guarantee) if name in promised else "",
                    str(promised[name].mechanism) if name in promised else "",
                    len(wanted.sinks[name].rows),
                    name in base.exact,
                    dict(at_sink[name]),
                )
                for name, sink in project.spec.sinks.items()
            ),
            wrong={what: wrong[what] for what in sorted({*COUNTED, *wrong})},
            lost_to_power=dict(power),
            recovery=percentiles([s for r in results for s in r.recovery]),
            failures=tuple(
                {"trial": str(r.trial), "findings": [str(f) for f in r.findings]} for r in results if r.findings
            )[:MOST_FAILURES],
            notes=tuple(notes),
        )

    @property
    def failed(self) -> int:
        """How many trials came out wrong."""
        return sum(k["failed"] for k in self.kinds.values())

    @property
    def verdict(self) -> Verdict:
        if self.control:
            return "control failed as it must" if self.failed else "control passed"
        return "not proven" if self.failed or not (self.trials - self.without_effect) else "proven"

    @property
    def exit_code(self) -> int:
        """0 where the promise was kept, or the control arm was found out; else 1."""
        return 0 if self.verdict in ("proven", "control failed as it must") else 1

    @property
    def again(self) -> str:
        """The options that give the same trials again."""
        options = [f"--seed {self.seed}", f"--kills {self.asked_kills}", *(f"--points {p}" for p in self.asked)]
        return " ".join([*options, *(["--control"] if self.control else [])])

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found["sinks"] = [vars(s) for s in self.sinks]
        return {
            "verdict": self.verdict,
            "failed": self.failed,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in found.items()},
        }

    def to_html(self) -> str:
        """One page that needs nothing else."""
        return _page(self)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """How many, the median, the 95th percentile and the greatest."""
    if not seconds:
        return {"count": 0}
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return {"count": len(ordered), "p50": at(0.5), "p95": at(0.95), "max": round(ordered[-1], 3)}


def _by_kind(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        these = [r for r in results if r.trial.kind == kind]
        if these:
            found[kind] = {
                "trials": len(these),
                "kills": sum(r.kills for r in these),
                "without_effect": sum(not (r.kills or r.struck) for r in these),
                "failed": sum(bool(r.findings) for r in these),
            }
    return found


def _by_point(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    kills: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for result in results:
        for at in result.killed_at:
            label = at.rpartition(":")[0]
            kills[label] += 1
            failed[label] += bool(result.findings)
    return {label: {"kills": kills[label], "failed": failed[label]} for label in sorted(kills)}


# ---------------------------------------------------------------- HTML

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --paper: #fff; --tint: #f6f8fa;
  --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --paper: #0d1117;
  --tint: #151b23; --good: #3fb950; --bad: #f85149; } }
* { box-sizing: border-box } body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; }
.seal { display: inline-block; padding: .15rem .7rem; border: 2px solid; border-radius: 1rem; font-weight: 600; }
.good { color: var(--good) } .bad { color: var(--bad) } .soft { color: var(--soft) }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.5rem 0; }
.facts div { background: var(--tint); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
.facts b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td.n, th.n { text-align: right; } td:first-child { white-space: nowrap; }
code { font: .9em ui-monospace, monospace; } .wide { overflow-x: auto }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; overflow-x: auto; }
"""


def _page(c: Certificate) -> str:
    e = html.escape
    good = c.exit_code == 0
    facts = [
        (f"{c.kills:,}", "kills"),
        (f"{c.trials:,}", "trials"),
        *((f"{c.wrong[what]:,}", what) for what in COUNTED),
        (f"{c.recovery.get('p95', 0):.2f} s", "to the first commit again, p95"),
    ]
    kinds = [
        (e(k), e(MEANINGS[k]), _n(v["trials"]), _n(v["kills"]), _n(v["without_effect"]), _n(v["failed"], bad=True))
        for k, v in c.kinds.items()
    ]
    points = [(f"<code>{e(p)}</code>", _n(v["kills"]), _n(v["failed"], bad=True)) for p, v in c.points.items()]
    sinks = [
        (
            e(s.sink),
            e(f"{s.connector}, {s.mode}"),
            e(s.guarantee),
            e(s.mechanism),
            _n(s.rows),
            "rows and bytes" if s.exact else "rows",
            _n(sum(s.wrong.values()), bad=True),
        )
        for s in c.sinks
    ]
    failures = "".join(
        f"<pre>{e(f['trial'])}\n  {e(chr(10).join(f['findings'])).replace(chr(10), chr(10) + '  ')}</pre>"
        for f in c.failures
    )
    notes = "".join(f"<li>{e(n)}</li>" for n in c.notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{e(c.pipeline)}: {e(c.verdict)}</title><style>{_STYLE}</style></head><body><main>
<h1>{e(c.pipeline)}</h1>
<p><span class="seal {"good" if good else "bad"}">{e(c.verdict)}</span>
<span class="soft">dropless {e(c.version)}, definition {e(c.definition[:12])}, seed {c.seed}, {e(c.made)}</span></p>
<p>A scratch copy of this pipeline was run over {c.read:,} records ({c.sample_bytes / 1024:,.0f} KiB,
{c.letters:,} dead letters), disturbed, resumed and compared with an undisturbed run: every target, the ledger's
balance, every dead letter. {e(_said(c))}</p>
<div class="facts">{"".join(f"<div><b>{n}</b><span class='soft'>{e(t)}</span></div>" for n, t in facts)}</div>
<h2>Targets</h2>{_table(["sink", "", "promised", "by", "#rows", "compared by", "#wrong"], sinks)}
<h2>Faults</h2>{_table(["fault", "", "#trials", "#kills", "#without effect", "#failed"], kinds)}
<h2>Where processes were killed</h2>{_table(["instant", "#kills", "#in failed trials"], points)}
{f"<h2>What came out wrong</h2>{failures}" if c.failures else ""}
{f"<h2>To know</h2><ul>{notes}</ul>" if notes else ""}
<h2>The same again</h2><pre>dropless prove DEFINITION {e(c.again)}</pre>
</main></body></html>
"""


def _said(c: Certificate) -> str:
    if c.control:
        return "This is the control arm: offsets are acknowledged late, and the instrument has to notice."
    return "Nothing differed." if not c.failed else f"{c.failed:,} trials came out wrong."


def _n(number: int, bad: bool = False) -> str:
    return f"<span class='bad'>{number:,}</span>" if bad and number else f"{number:,}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    right = [h.startswith("#") for h in heads]

    def line(tag: str, cells: Sequence[str]) -> str:
        marked = zip(cells, right, strict=True)
        return "".join(f"<{tag}{' class=n' if r else ''}>{cell}</{tag}>" for cell, r in marked)

    head = line("th", [html.escape(h.lstrip("#")) for h in heads])
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"
