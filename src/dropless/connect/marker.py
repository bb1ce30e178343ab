"""The marker row of a database target: which epoch of a sink the target holds, and who put it there.

It changes in the same transaction as the rows, so the target itself knows what it has (L4) and whose turn it is (L5).
"""

from __future__ import annotations

from dataclasses import dataclass

from dropless.connect.api import CommitPermit
from dropless.errors import ConnectorError, Fenced, problem

TABLE = "_dropless"


@dataclass(frozen=True)
class Marker:
    """The last epoch the target holds of one pipeline's sink."""

    epoch: int
    generation: int
    ledger: str = ""


def create(table: str) -> str:
    """The statement that makes the marker table where it is missing, for DuckDB, SQLite and PostgreSQL alike."""
    return f"""CREATE TABLE IF NOT EXISTS {table} (
        pipeline VARCHAR(255) NOT NULL, sink VARCHAR(255) NOT NULL, epoch BIGINT NOT NULL, generation BIGINT NOT NULL,
        ledger VARCHAR(255) NOT NULL, updated_at TIMESTAMP NOT NULL, PRIMARY KEY (pipeline, sink))"""


def settled(marker: Marker | None, permit: CommitPermit, sink: str, replaceable: bool) -> bool:
    """True where the target holds the epoch already, so that nothing is to be done.

    `replaceable` says that the table is absent or is replaced as a whole, so that another ledger's rows do not matter.
    Raises Fenced for a generation older than the marker's, ConnectorError for a marker of another ledger.
    """
    if marker is None:
        return False
    if marker.ledger and permit.ledger and marker.ledger != permit.ledger:
        # Comparing the numbers would skip epochs of a new ledger as if they were published: silent loss.
        if replaceable:
            return False
        where = f"pipeline = '{permit.pipeline}' and sink = '{sink}'"
        raise ConnectorError(
            problem(
                "sink.other_ledger",
                f'the target of sink "{sink}" holds epoch {marker.epoch} of another ledger of "{permit.pipeline}"',
                hint=f"bring that ledger back, or begin anew: delete from {TABLE} where {where}",
            )
        )
    if marker.generation > permit.generation:
        raise Fenced(
            problem(
                "protocol.fenced",
                f'generation {permit.generation} lost "{permit.pipeline}" to generation {marker.generation}, '
                f'which published epoch {marker.epoch} to sink "{sink}"',
            )
        )
    return marker.epoch >= permit.epoch
