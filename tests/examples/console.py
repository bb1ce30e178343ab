"""Commands and output printed in a README, run again and compared; or written anew.

`python tests/examples/console.py` runs the commands of every README for which the data is at hand and writes what they
print into it.
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
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
VARIES = (
    (re.compile(r"in \d+\.\d s\b"), "in N s"),
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
    """A command of a README and the output printed below it."""

    command: str
    output: str


def shown(text: str) -> list[Shown]:
    """The commands of all console blocks, in their order."""
    found = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append(Shown(command, output.strip()))
    return found


def run(command: str, folder: Path) -> str:
    """What a command prints on standard output, in a folder; the `dropless` and the Python of this environment."""
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise AssertionError(f"{command}: status {done.returncode}\n{done.stderr}")
    return done.stdout.strip()


def same(text: str) -> str:
    """Without what differs from run to run: times, the numbers of letters and with them their order."""
    for pattern, word in VARIES:
        text = pattern.sub(word, text)
    lines = text.strip().splitlines()
    letters = sorted(line for line in lines if line.startswith("ID "))
    return "\n".join(letters.pop(0) if line.startswith("ID ") else line for line in lines)


def written(text: str, folder: Path) -> str:
    """The README with the output its commands give now."""

    def block(match: re.Match[str]) -> str:
        lines = []
        for part in re.split(r"^\$ ", match[1], flags=re.M)[1:]:
            command, _, before = part.partition("\n")
            now = run(command, folder)
            # What says the same but for times is left as it was.
            output = before.strip() if same(before) == same(now) else "\n".join(x.rstrip() for x in now.splitlines())
            lines.append(f"$ {command}\n{output}".rstrip() + "\n")
        return "```console\n" + "\n".join(lines) + "```"

    return BLOCK.sub(block, text)


def copied(name: str, folder: Path) -> Path:
    """A copy of an example without what a user's own runs left in it."""
    left = ("out", ".dropless", "build", "__pycache__") + (() if name == "shop" else ("input",))
    return shutil.copytree(ROOT / "examples" / name, folder / name, ignore=shutil.ignore_patterns(*left))


def main(names: list[str]) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    import fetch

    for name in names or [*fetch.SETS, "shop"]:
        readme = ROOT / "README.md" if name == "shop" else ROOT / "examples" / name / "README.md"
        with tempfile.TemporaryDirectory() as folder:
            copy = copied(name, Path(folder))
            if name in fetch.SETS:
                fetch.fetch(name, copy / "input", DATA)
            readme.write_text(written(readme.read_text(), copy))
        sys.stdout.write(f"{readme}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
