"""Codes of the sink family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "sink.rows_missing": """An undo or a repair takes rows away that the target does not hold any more.
Nothing of that epoch was changed, since its transaction ended as a whole, and it is kept to be tried again. Somebody
deleted or altered the rows meanwhile: `dropless verify` names them; put them back, and run again.""",
    "sink.refused": """The target answered and said no; asking again would give the same answer.
The message holds the target's own words, for instance a violated constraint, a missing permission or a file that
is not a database.
Mend the target or the rows. The epoch keeps its token, so nothing is computed twice once it is mended.""",
    "sink.not_separable": """Rows that a target refuses cannot be told apart from the others, so they cannot become
dead letters.
The parked rows are results of many records, or were computed under another definition or with other
table rows than now. Mend the target (drop the constraint, widen the column) and run again; the token is kept.""",
    "sink.not_parked": """There is nothing to release: the sink is not parked, or there is no sink of that name.
A sink is parked when its target refuses an epoch for a reason that retrying does not cure; `dropless runs` and `show`
name it. Check the name.""",
    "sink.unreachable": """The target does not answer: connection refused, server starting or shutting down, network
gone.
It is an outage, never a fault of a record, so it is tried again. Start the target or correct its address.""",
    "sink.unauthorized": """The target does not accept the user or password it is given.
Credentials expire and are renewed while a pipeline runs, so it is taken for an outage: tried again, and no record
becomes a dead letter. Correct the address in the definition or the environment, or the password in the target.""",
    "sink.locked": """Another process or connection holds a lock that the commit needs, and held it longer than the
sink waits.
DuckDB allows one writing process per file and SQLite one writer at a time. It is tried again; close the other
program, or raise `lock_timeout`.""",
    "sink.disk_full": """There is no space left where the sink stages or writes.
Free space; the epoch is tried again and nothing of it is visible until then.""",
    "sink.lost": """What an epoch made durable before its commit point is no longer there, so it cannot be published.
Something else removed files from the staging folder. Restore them, or take the epoch's ranges again with a
backfill.""",
    "sink.schema_mismatch": """The target table and the relation do not have the same columns.
The message names the columns that only one of them has. Alter the table, or name the columns in a transform.""",
    "sink.driver_missing": """The database's driver is not installed.
Drivers are extras: install the one that the message names.""",
    "sink.other_ledger": """The target was filled by another ledger of the same pipeline and sink, so its epoch
numbers say nothing about this one.
Usually `.dropless` was deleted or the definition runs from a copied folder. Bring the ledger back, or remove the
rows named by the message from `_dropless` to begin anew on top of what the table holds.""",
    "sink.occupied": """A file that the sink is about to publish is there already, and this epoch did not write it.
Another pipeline with a sink of the same name writes into the folder, or an earlier ledger did. Move the file
away, or give the sink another path.""",
    "sink.partition": """`partition_by` names a column that the relation does not have, or leaves no column for the
files themselves.
Partition columns become folder names, so at least one other column must remain. Correct the names; the message
lists the columns there are.""",
    "sink.type_unsupported": """The format cannot hold a column's type without loss, or a folder's name cannot tell
its values apart.
For instance Parquet has no interval that pyarrow writes. Cast the column in a transform, for instance to VARCHAR.""",
    "sink.delimiter": """The delimiter of a CSV file is not one character, or is a quote or a line end.
Such a file could not be read back. Choose another one, for instance a comma, a semicolon or a tab.""",
    "sink.cannot_replace": """The sink was asked to replace or take back what it has delivered, and its target is a
log that others read.
A Kafka topic keeps what was written to it: a run with `--full`, a backfill of a committed range and `undo` cannot take
it back. Run into a topic of another name, and let its readers move over.""",
}
