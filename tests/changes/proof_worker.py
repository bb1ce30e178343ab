"""A worker whose trials run under an engine that tells the server too early that a change is kept (L1, L2)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

replace = setattr
"""In place of an assignment, since to a type checker a method is for ever."""


def too_early() -> None:
    """What was received is acknowledged, and nobody looks whether the slot still has what the ledger has not."""
    from dropless.connectors.postgres.replication import Replication
    from dropless.connectors.postgres.slot import Slots, slot_of

    take = Replication._take

    def eager(self: Replication) -> Any:
        sent = take(self)
        if sent is not None:
            self.keep(sent.end)
        return sent

    replace(Replication, "_take", eager)
    replace(Slots, "verify", lambda self, con, after: slot_of(con, self.config.slot))


if __name__ == "__main__":
    from dropless.prove.worker import main

    main(float(sys.argv[1]))
