"""The benchmarks are no part of the package; the tests reach them in the repository."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
