"""Plays a user of `dropless` through its main job, on generated clicks and orders of which the truth is known.

`make quickstart` runs it. Every command is the real one, shown with its own output; the run is killed with a real
SIGKILL; at the end the files and tables are compared with the truth, and any difference ends with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import compare
import shop_data
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).resolve().parent
WIDTH = 100
BUG = "CAST(o.discount AS INTEGER)"
MENDED = "CAST(rtrim(o.discount, '%') AS INTEGER)"
KILL_AFTER_DAYS = 3
"""The run is killed when so many days have files in the lake: some epochs are published, others are on their way."""


class Unexpected(Exception):
    """What was shown is not what must be."""


class Quickstart:
    """A folder with the definition and its data, and the terminal on which a user works in it."""

    def __init__(self, folder: Path, console: Console, days: int = shop_data.DAYS) -> None:
        self.folder, self.console, self.days = folder, console, days
        beside = Path(sys.executable).parent / "dropless"
        self.command = [str(beside)] if beside.exists() else [sys.executable, "-m", "dropless.cli.main"]
        self.scenes = 0

    def scene(self, title: str, words: str) -> None:
        self.scenes += 1
        self.console.print()
        self.console.print(Rule(f"[bold]{self.scenes}  {title}[/]", align="left", style="cyan"))
        self.say(words)

    def say(self, words: str) -> None:
        self.console.print(words, highlight=False)

    def show_command(self, arguments: Sequence[str]) -> None:
        quoted = " ".join(
            a if a.replace("-", "").replace(":", "").replace(".", "").isalnum() else f"'{a}'" for a in arguments
        )
        self.console.print()
        self.console.print(Text.assemble(("$ ", "dim"), (f"dropless {quoted}", "bold green")))
        sys.stdout.flush()

    def dropless(self, *arguments: str) -> None:
        """Shows a command and its output as it comes; it must succeed."""
        self.show_command(arguments)
        done = subprocess.run([*self.command, *arguments], cwd=self.folder)
        if done.returncode != 0:
            raise Unexpected(f"dropless {' '.join(arguments)} ended with status {done.returncode}")

    def ask(self, *arguments: str) -> str:
        """What a command prints, not shown: how this script looks at what it must explain."""
        done = subprocess.run([*self.command, *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unexpected(f"dropless {' '.join(arguments)} ended with status {done.returncode}: {done.stderr}")
        return done.stdout

    def killed_run(self) -> None:
        """Starts a run and kills it as soon as the lake shows that some of it is done."""
        self.show_command(["run"])
        begun = time.monotonic()
        process = subprocess.Popen([*self.command, "run"], cwd=self.folder, start_new_session=False)
        try:
            while process.poll() is None and len(days_in_lake(self.folder)) < KILL_AFTER_DAYS:
                time.sleep(0.01)
        finally:
            alive = process.poll() is None
            if alive:
                process.send_signal(signal.SIGKILL)
            status = process.wait()
        # A process that is killed cannot show the cursor again that its progress view had hidden.
        if self.console.is_terminal:
            sys.stdout.write("\x1b[?25h\n")
            sys.stdout.flush()
        if not alive or status != -signal.SIGKILL:
            raise Unexpected(f"the run ended with status {status} before it could be killed")
        self.say(f"[bold red]killed[/] with SIGKILL after {time.monotonic() - begun:.1f} s")

    # ------------------------------------------------------------ the scenes

    def play(self) -> None:
        truth = self.data()
        self.kill(truth)
        self.resume(truth)
        letter = self.look(truth)
        self.mend(truth, letter)
        self.compare()

    def data(self) -> shop_data.Truth:
        for name in ("pipeline.yaml", "contracts"):
            copy = shutil.copytree if (HERE / name).is_dir() else shutil.copy
            copy(HERE / name, self.folder / name)
        truth = shop_data.write(self.folder, self.days)
        broken = truth.refused.total()
        self.scene(
            f"{self.days} days of clicks and orders",
            f"{truth.read['clicks']:,} clicks (NDJSON) and {truth.read['orders']:,} orders (CSV), one file a day. "
            f"{broken:,} records are broken on purpose: cut off, not UTF-8, NaN, a column too many, a price of zero. "
            f"And there is a bug in our SQL that {truth.broken_by_the_bug:,} good orders will meet. "
            "The truth about each record is set aside in [bold]truth.json[/], worked out without dropless.",
        )
        self.dropless("check")
        return truth

    def kill(self, truth: shop_data.Truth) -> None:
        self.scene("A run that is killed on its way", "We kill the process while files appear in the lake.")
        self.killed_run()
        self.dropless("runs")
        facts = json.loads(self.ask("show", "--json"))
        read, total = committed(facts), sum(truth.read.values())
        if not 0 < read < total:
            raise Unexpected(f"the kill was not mid-run: {read:,} of {total:,} records were committed")
        if not facts["balanced"]:
            raise Unexpected("the ledger does not balance after the kill")
        self.say(
            f"\nIt was mid-run: [bold]{read:,} of {total:,}[/] records were committed, in whole epochs. What the "
            "others had already written is invisible to every reader."
        )

    def resume(self, truth: shop_data.Truth) -> None:
        self.scene(
            "The next run takes up where it died", "The same command. There is nothing to clean up, and no flag."
        )
        self.dropless("run")
        facts = json.loads(self.ask("show", "--json"))
        balance(facts, truth)
        self.say(
            "\nFor each sink the numbers on the right add up to the records read. That is checked [bold]before[/] each "
            "commit: an epoch that does not balance is not committed."
        )

    def look(self, truth: shop_data.Truth) -> dict[str, Any]:
        self.scene(
            "Nothing is lost with a refused record",
            "The bad rows did not stop the job. Each keeps its original bytes, its place and every reason; so do the "
            "good orders that our SQL could not compute.",
        )
        letters = [json.loads(line) for line in self.ask("dead-letters", "list", "--json", "--all").splitlines()]
        found = Counter(
            f"{x['source']} {rule}" for x in letters if x["stage"] != "transform:sales" for rule in x["rules"]
        )
        if found != truth.refused:
            raise Unexpected(f"the refusals are not the faults that were planted: {found} / {truth.refused}")
        mine = [x for x in letters if x["stage"] == "transform:sales"]
        if len(mine) != truth.broken_by_the_bug:
            raise Unexpected(f"{len(mine):,} orders met the bug, expected {truth.broken_by_the_bug:,}")
        self.dropless("dead-letters", "list", "--limit", "3")
        self.dropless("dead-letters", "list", "--stage", "transform:sales", "--limit", "3")
        self.dropless("dead-letters", "show", mine[0]["id"])
        return mine[0]

    def mend(self, truth: shop_data.Truth, letter: dict[str, Any]) -> None:
        self.scene(
            "The bug is fixed and its dead letters are replayed",
            "The shop's form now sends [bold]10%[/] where it sent [bold]10[/]. We mend the SQL:",
        )
        file = self.folder / "pipeline.yaml"
        text = file.read_text()
        assert BUG in text
        file.write_text(text.replace(BUG, MENDED))
        line = next(x for x in text.splitlines() if BUG in x)
        self.console.print()
        self.console.print(Text(f"- {line.strip()}", style="red"))
        self.console.print(Text(f"+ {line.strip().replace(BUG, MENDED)}", style="green"))
        self.dropless("dead-letters", "replay", "--stage", "transform:sales", "--dry-run", "--limit", "1")
        self.dropless("dead-letters", "replay", "--stage", "transform:sales")
        self.say("\nThe same command again finds nothing to do: a letter is replayed once.")
        self.dropless("dead-letters", "replay", "--stage", "transform:sales")
        self.say("\nAny record can be followed, here the order we looked at above:")
        where = ["--source", letter["source"], "--split", letter["split"], "--position", str(letter["position"])]
        self.dropless("account", *where)

    def compare(self) -> None:
        self.scene(
            "Is it true?",
            "The lake, DuckDB and SQLite are read without dropless and compared with the truth of the first step, "
            "row by row and cent by cent.",
        )
        comparisons = compare.compare(self.folder)
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="bold")
        table.add_column("compared")
        table.add_column("found", justify="right")
        table.add_column("truth", justify="right")
        table.add_column("")
        for c in comparisons:
            cells = (short(c.found), short(c.expected))
            table.add_row(c.what, *cells, "[green]equal[/]" if c.equal else f"[red]DIFFERS[/] {c.differs}")
        self.console.print()
        self.console.print(table)
        wrong = [c.what for c in comparisons if not c.equal]
        if wrong:
            raise Unexpected(f"not equal to the truth: {', '.join(wrong)}")

    def farewell(self, seconds: float) -> None:
        folder, activate = near(self.folder), near(Path(sys.prefix) / "bin" / "activate")
        on_path = [] if shutil.which("dropless") else [f"[bold]. {activate}[/]"]
        lines = [
            f"Killed, resumed, mended, replayed: [bold]nothing lost, nothing twice[/], in {seconds:.0f} s.\n",
            *on_path,
            f"[bold]cd {folder}[/] and look at next:",
            "  [green]dropless dead-letters list --rule csv[/]        the rows that are still waiting for a decision",
            "  [green]dropless dead-letters edit ID[/]                mend one by hand; then replay it",
            "  [green]dropless explain pipeline.yaml[/]               the operators, their SQL and state",
            "  [green]dropless show[/]                                where each record of a run went, by operator",
            "  [green]echo >> input/orders/2026-03-02.csv[/]          change a committed file; the next run names it",
            "\nReal data: [bold]examples/nightly_retail[/] and its neighbours. How it works: [bold]docs/design[/].",
        ]
        self.console.print()
        self.console.print(Panel("\n".join(lines), border_style="green", padding=(1, 2)), highlight=False)


def near(path: Path) -> Path:
    """As a person in this folder would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def days_in_lake(folder: Path) -> set[str]:
    """Days of which a reader sees a file."""
    return {path.parent.name for path in (folder / "lake").glob("visits/**/*.parquet")}


def committed(facts: dict[str, Any]) -> int:
    """Records of all sources in committed epochs; each source once, whatever number of sinks it goes to."""
    return sum({p["source"]: p["read"] for p in facts["paths"] if p["source"] in ("clicks", "orders")}.values())


def balance(facts: dict[str, Any], truth: shop_data.Truth) -> None:
    """The ledger of the interrupted run and its resumption says what the truth says, but for what the bug refuses."""
    for p in facts["paths"]:
        path = f"{p['source']} -> {p['sink']}"
        if path not in truth.fates:
            continue
        want = Counter(truth.fates[path])
        if p["source"] == "orders":
            want["delivered" if p["sink"] == "sales" else "folded"] -= truth.broken_by_the_bug
            want["quarantined"] += truth.broken_by_the_bug
        if p["read"] != truth.read[p["source"]] or +Counter(p["fates"]) != want:
            raise Unexpected(
                f"{path}: {p['read']:,} read, {p['fates']}; expected {truth.read[p['source']]:,}, {dict(want)}"
            )


def short(value: Any) -> str:
    return f"{len(value):,} rows" if isinstance(value, list) else f"{value:,}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / "build", help="where to work; emptied first")
    parser.add_argument("--days", type=int, default=shop_data.DAYS, help="how much data (default: %(default)s days)")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / "pipeline.yaml").exists():
        parser.error(f"{folder} holds something else; it is not emptied")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    console = Console(width=WIDTH if not sys.stdout.isatty() else min(WIDTH, shutil.get_terminal_size().columns))
    errors = Console(stderr=True)
    begun = time.monotonic()
    console.print(Text.assemble(("dropless", "bold cyan"), "  data pipelines in which every record is accounted for"))
    show = Quickstart(folder, console, options.days)
    try:
        show.play()
    except Unexpected as error:
        errors.print(Text(f"the quickstart failed: {error}", style="bold red"))
        return 1
    show.farewell(time.monotonic() - begun)
    return 0


if __name__ == "__main__":
    sys.exit(main())
