"""What can go wrong, as a tree by who must act. Pure; every package may import it, it imports none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dropless.errors.codes import CODES


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file the user wrote; `path` is the dotted path inside it, such as `sources.orders.csv.path`."""

    file: str
    line: int
    path: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" ({self.path})" if self.path else "")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: a registered code, one lower-case sentence, where, and what to do."""

    code: str
    message: str
    where: Place | None = None
    hint: str | None = None

    def __post_init__(self) -> None:
        assert self.code in CODES, f"error code {self.code!r} is not registered in dropless.errors.codes"

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        if self.where:
            lines.append(f"  at {self.where}")
        if self.hint:
            lines += [f"  {line}" for line in self.hint.splitlines()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The fields every command prints with `--json`."""
        return {
            "code": self.code,
            "message": self.message,
            "file": self.where.file if self.where else None,
            "line": self.where.line if self.where else None,
            "path": (self.where.path or None) if self.where else None,
            "hint": self.hint,
        }


class DroplessError(Exception):
    """The root. Carries one or more problems; `exit_code` says who must act."""

    exit_code = 70

    def __init__(self, *problems: Problem) -> None:
        assert problems
        self.problems = problems
        super().__init__("\n\n".join(str(p) for p in problems))

    @property
    def code(self) -> str:
        return self.problems[0].code


class DefinitionError(DroplessError):
    """The pipeline's definition is wrong; holds all its problems (L12)."""

    exit_code = 2


class DataRefused(DroplessError):
    """The data is wrong and a gate, a budget or a contract says stop."""

    exit_code = 3


class ConnectorError(DroplessError):
    """The outside world failed. `retryable` tells an outage (L13) from a refusal that retrying cannot cure."""

    exit_code = 4

    def __init__(self, *problems: Problem, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(*problems)
        self.retryable = retryable
        self.retry_after = retry_after


class Fenced(DroplessError):
    """Another generation owns the pipeline (L5)."""

    exit_code = 5


class LedgerCorrupt(DroplessError):
    """Stored facts contradict each other."""

    exit_code = 6


def problem(code: str, message: str, where: Place | None = None, hint: str | None = None) -> Problem:
    """Returns a problem whose code is registered."""
    return Problem(code, message, where, hint)
