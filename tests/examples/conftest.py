"""The examples are programs of their own, beside the package; the tests import them from where they stand."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parents[1] / "examples", HERE.parents[1] / "examples" / "quickstart"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
