"""Commands and output printed in a page, run again and compared; or written anew.

A page is worked through from top to bottom, as a reader would: a block whose fence names a file after the language is
written to that file, the commands of a `console` block are run. A page that goes on where another one ends says so in
its first line: `<!-- goes on from first-pipeline.md -->`.

`python tests/examples/console.py` works through every page for which the data is at hand and writes what its commands
print into it; `python tests/examples/console.py NAME...` only those of these examples or guides.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
GUIDES = ROOT / "docs" / "guide"
BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<file>\S+))?\n(?P<body>.*?)^```$", re.M | re.S)
BEFORE = re.compile(r"\A<!-- goes on from (\S+) -->$", re.M)
VARIES = (
    (re.compile(r"in \d+\.\d s\b"), "in N s"),
    (re.compile(r"in \d+ s; seed"), "in N s; seed"),
    (re.compile(r"median \d+\.\d+ s, 95th percentile \d+\.\d+ s"), "median N s, 95th percentile N s"),
    (re.compile(r"^\S+ epoch \d+ (reading|computing|publishing).*\n", re.M), ""),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00)?"), "TIME"),
    (re.compile(r"\bdefinition [0-9a-f]{16}\b"), "definition VERSION"),
    # Letters are numbered as their chunks are done, and chunks of several threads are done as it happens.
    (re.compile(r"^\d+-\d+ +|(?<=--after )\d+-\d+$", re.M), "ID "),
    (re.compile(r"^id +stage", re.M), "id stage"),
    (re.compile(r"dead letter \d+-\d+"), "dead letter ID"),
    (re.compile(r"[ \t]+$", re.M), ""),
)


@dataclass(frozen=True)
class Shown:
    """A command of a page, the output printed below it, and the output it gave now."""

    command: str
    said: str
    now: str


def worked_through(text: str, folder: Path) -> list[list[Shown]]:
    """Every `console` block of a page with what its commands print now, its files being written on the way."""
    blocks = []
    for block in BLOCK.finditer(text):
        if block["file"]:
            file = folder / block["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["body"])
        elif block["language"] == "console":
            blocks.append([])
            for part in re.split(r"^\$ ", block["body"], flags=re.M)[1:]:
                command, _, said = part.partition("\n")
                blocks[-1].append(Shown(command, said.strip(), run(command, folder)))
    return blocks


def run(command: str, folder: Path) -> str:
    """What a command prints, in a folder; the `dropless` and the Python of this environment.

    Standard error is left out where a command did its work: it has the progress.
    """
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode not in (0, 2, 3, 4, 5):
        raise AssertionError(f"{command}: status {done.returncode}\n{done.stderr}")
    return (done.stdout if done.returncode in (0, 3) else done.stdout + done.stderr).strip()


def same(text: str) -> str:
    """Without what differs from run to run: times, the numbers of letters and with them their order."""
    for pattern, word in VARIES:
        text = pattern.sub(word, text)
    lines = text.strip().splitlines()
    letters = sorted(line for line in lines if line.startswith("ID "))
    return "\n".join(letters.pop(0) if line.startswith("ID ") else line for line in lines)


def written(text: str, folder: Path) -> str:
    """The page with the output its commands give now; what says the same but for times is left as it was."""
    blocks = iter(worked_through(text, folder))

    def block(match: re.Match[str]) -> str:
        if match["language"] != "console":
            return match[0]
        lines = []
        for shown in next(blocks):
            output = shown.said if same(shown.said) == same(shown.now) else shown.now
            lines.append("\n".join(x.rstrip() for x in f"$ {shown.command}\n{output}".splitlines()).rstrip() + "\n")
        return "```console\n" + "\n".join(lines) + "```"

    return BLOCK.sub(block, text)


def copied(name: str, folder: Path) -> Path:
    """A copy of an example without what a user's own runs left in it."""
    left = ("out", ".dropless", "build", "__pycache__") + (() if name == "shop" else ("input",))
    return shutil.copytree(ROOT / "examples" / name, folder / name, ignore=shutil.ignore_patterns(*left))


def guide_folder(page: Path, folder: Path) -> Path:
    """Where a guide is worked through: an empty folder, or what the guide before it left."""
    before = BEFORE.match(page.read_text())
    if before:
        work = guide_folder(page.with_name(before[1]), folder)
        worked_through(page.with_name(before[1]).read_text(), work)
        return work
    work = folder / "work"
    work.mkdir()
    return work


def main(names: list[str]) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    import fetch

    guides = {page.stem: page for page in sorted(GUIDES.glob("*.md"))}
    for name in names or [*fetch.SETS, "shop", *guides]:
        with tempfile.TemporaryDirectory() as folder:
            if name in guides:
                page, work = guides[name], guide_folder(guides[name], Path(folder))
            else:
                page = ROOT / "README.md" if name == "shop" else ROOT / "examples" / name / "README.md"
                work = copied(name, Path(folder))
            if name in fetch.SETS:
                fetch.fetch(name, work / "input", DATA)
            page.write_text(written(page.read_text(), work))
        sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
