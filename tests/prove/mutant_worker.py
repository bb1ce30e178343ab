"""A worker whose trials run under a mutant: it finds `mutants` where the tests are."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from dropless.prove.worker import main

if __name__ == "__main__":
    main(float(sys.argv[1]))
