"""Runs pipelines in forks of one process that has imported everything, so that a killed run costs no start.

Started by `golden_runner`; reads a request a line, answers a line: how the fork ended. It never has a thread.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _warm()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(request)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), file=answers, flush=True)


def _warm() -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import duckdb  # noqa: F401
    import psycopg  # noqa: F401
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    import dropless.engine.run
    import dropless.engine.stateful  # noqa: F401


def _run(request: dict[str, str]) -> None:
    """In the fork: one run, killed at the named point where one is named. Never returns."""
    code = 70
    try:
        from dropless.engine import failpoint
        from dropless.engine.project import load_one
        from dropless.engine.run import run

        if request["point"]:
            failpoint.plant(failpoint.killer(*failpoint.parse(request["point"])))
        os.chdir(request["folder"])
        report = run(load_one(Path("pipeline.yaml")))
        for problem in report.problems:
            sys.stderr.write(f"{problem}\n")
        code = report.exit_code
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(code)


if __name__ == "__main__":
    main()
