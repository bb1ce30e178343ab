"""`prove`: the pipeline under faults, in a scratch copy, and the certificate of what came of it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from dropless.cli.common import as_json, definition, guarded, which
from dropless.cli.output import number, print_json, table

if TYPE_CHECKING:
    from dropless.prove.arena import Result
    from dropless.prove.certificate import Certificate

LINE_EVERY_S = 5.0


@click.command()
@definition
@which
@as_json
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same faults again (default: a random seed).")
@click.option(
    "--kills", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="How many kills."
)
@click.option(
    "--points",
    multiple=True,
    metavar="NAME",
    help="Only this kind of fault (kill, power-cut, disk-full, ...) or instant (commit.before, publish.after[SINK], "
    "io.rename, ...). May be given several times, or with commas.",
)
@click.option(
    "--control", is_flag=True, help="An at-least-once arm that must fail, so that the instrument is seen to work."
)
@click.option("--mended", metavar="DEFINITION", help="Replay dead letters under this definition, which accepts some.")
@click.option("--generate", is_flag=True, help="Generate data from the contracts instead of sampling the sources.")
@click.option("--target-url", metavar="URL", help="PostgreSQL server for scratch copies (default: the pipeline's own).")
@click.option(
    "--jobs", type=click.IntRange(min=0), default=0, metavar="N", help="Trials at once (default: one a core)."
)
@click.option(
    "--certificate",
    "out",
    metavar="PATH",
    help="Write PATH.json and PATH.html (default: .dropless/proofs/PIPELINE-SEED).",
)
@guarded
def prove(
    path: str,
    pipeline: str | None,
    as_json: bool,
    seed: int | None,
    kills: int,
    points: tuple[str, ...],
    control: bool,
    mended: str | None,
    generate: bool,
    target_url: str | None,
    jobs: int,
    out: str | None,
) -> None:
    """Kill the pipeline again and again; see if anything is lost.

    Runs in a scratch copy over a sample of the sources; the real targets and the ledger are never written. Every
    trial is resumed and compared with an undisturbed run: rows, bytes where they are decided, dead letters, balance.

    \b
    Example:                 dropless prove --kills 200
    The same faults again:   dropless prove --seed 1234
    Is the instrument sharp: dropless prove --control
    Exit codes: 0 proven (with --control: found out), 1 not, 2 and 4 as ever.
    """
    from dropless.engine.project import load_one
    from dropless.prove.campaign import Options
    from dropless.prove.campaign import prove as execute

    project = load_one(path, pipeline)
    project.require()
    fixed = load_one(mended, pipeline) if mended else None
    if fixed is not None:
        fixed.require()
    with _View(quiet=as_json) as view:
        certificate = execute(
            project,
            Options(
                seed=seed,
                kills=kills,
                points=tuple(p for given in points for p in given.split(",") if p),
                control=control,
                target_url=target_url,
                generate=generate,
                jobs=jobs,
                mended=fixed,
                observe=view.observe,
            ),
        )
    files = _write(certificate, Path(out) if out else _default(project.spec.folder, certificate))
    if as_json:
        print_json({**certificate.to_json(), "files": [str(f) for f in files]})
    else:
        _show(certificate, files)
    sys.exit(certificate.exit_code)


def _default(folder: Path, certificate: Certificate) -> Path:
    arm = "-control" if certificate.control else ""
    return folder / ".dropless" / "proofs" / f"{certificate.pipeline}-{certificate.seed}{arm}"


def _write(certificate: Certificate, stem: Path) -> list[Path]:
    """The certificate as JSON and as a page. Raises ConnectorError `prove.unwritable`."""
    import orjson

    from dropless.errors import ConnectorError, problem

    files = [stem.with_name(stem.name + ending) for ending in (".json", ".html")]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        files[0].write_bytes(orjson.dumps(certificate.to_json(), option=orjson.OPT_INDENT_2))
        files[1].write_text(certificate.to_html(), encoding="utf-8")
    except OSError as error:
        text = f"the certificate cannot be written to {error.filename or stem}: {error.strerror}"
        raise ConnectorError(
            problem("prove.unwritable", text, hint="name another place: --certificate PATH")
        ) from error
    return files


def _show(c: Certificate, files: list[Path]) -> None:
    colour = "green" if c.exit_code == 0 else "red"
    click.echo(click.style(c.pipeline, bold=True) + " " + click.style(c.verdict, fg=colour, bold=True))
    click.echo(
        f"  {c.trials:,} trials with {c.kills:,} kills over {c.read:,} records and {c.letters:,} dead letters, "
        f"in {c.seconds:,.0f} s; seed {c.seed}"
    )
    click.echo()
    table(
        [[k, number(v["trials"]), number(v["kills"]), number(v["failed"])] for k, v in c.kinds.items()],
        ["fault", "trials", "kills", "failed"],
    )
    click.echo()
    wrong = ("lost", "duplicated", "foreign")
    table(
        [
            [
                s.sink,
                f"{s.connector} {s.mode}",
                number(s.rows),
                *(number(s.wrong.get(w, 0)) for w in wrong),
                s.guarantee,
            ]
            for s in c.sinks
        ],
        ["sink", "", "rows", *wrong, "promised"],
    )
    click.echo()
    if c.recovery.get("count"):
        click.echo(
            f"  back to the first commit: median {c.recovery['p50']:.2f} s, 95th percentile {c.recovery['p95']:.2f} s, "
            f"from the start of the process"
        )
    for note in c.notes:
        click.echo(f"  note: {note}")
    for failure in c.failures[:5]:
        click.echo(click.style(f"  {failure['trial']}", fg="yellow"))
        for finding in failure["findings"]:
            click.echo(f"    {finding}")
    click.echo(f"  certificate: {files[1]}")
    click.echo(f"  the same again: dropless prove {c.again}")


class _View:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0
        self._kills = self._failed = 0

    def __enter__(self) -> _View:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[kills]} kills"),
                TextColumn("[red]{task.fields[failed]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("undisturbed runs", total=None, kills=0, failed="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def observe(self, done: int, total: int, result: Result | None) -> None:
        """Shows how far the campaign is."""
        if result is not None:
            self._kills += result.kills
            self._failed += bool(result.findings)
        failed = f"{self._failed} failed" if self._failed else ""
        if self._bar is not None:
            self._bar.update(
                self._task, description="trials", completed=done, total=total, kills=self._kills, failed=failed
            )
        elif not self._quiet and time.monotonic() - self._last > LINE_EVERY_S:
            self._last = time.monotonic()
            line = f"{done:,} of {total:,} trials, {self._kills:,} kills"
            click.echo(line + (f", {failed}" if failed else ""), err=True)
