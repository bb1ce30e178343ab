"""Codes of the source family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "source.not_found": """A file, folder or bucket that a source names does not exist.
Usually a wrong path, a mount that is missing, or a file that was moved away; a glob that matches nothing in an
existing folder is no error.
Correct `path`, or put the file back.""",
    "source.permission": """The process may not read what a source names.
The operating system or the object store refused it. Grant read permission on the file and on every folder above
it, or correct the keys.""",
    "source.unauthorized": """The source does not accept the user or password it is given.
Credentials expire and are renewed while a pipeline runs, so it is taken for an outage and tried again. Correct the
address in the definition or the environment, or the password in the source.""",
    "source.unreachable": """A source could not be read just now: the network, the service or the disk failed.
Nothing was lost and no record was refused; the run may be repeated as it is. If it lasts, look at the service the
message names.""",
    "source.unreadable": """A file is not of the format its source declares, as a whole: a Parquet file without a
valid footer, a .gz file that is no gzip.
Single bad records become dead letters; this is a file in which no record can be found. Replace the file, or
correct the source's format or `compression`.""",
    "source.bad_header": """The header line of a CSV file cannot be used: a column name occurs twice (perhaps only
after `rename`), the line is not valid text in
the declared `encoding`, or its quotes are broken.
Correct the file, or `rename`, `encoding`, `delimiter` and `quote` of the source. A file without a header line
needs `header: false`.""",
    "source.bad_setting": """A setting of a file source cannot be used, such as a delimiter of two characters or an
encoding that is not known.
Every such setting of the source is named; correct them in the definition.""",
    "source.no_columns": """The columns of a source are not known and cannot be found out from its data.
A source without a contract takes its columns from a sample; there was nothing to sample. Add a contract, or data.""",
    "source.locked": """Another process or connection holds a lock on the database, and held it longer than the
source waits.
DuckDB shares a file only among readers. It is tried again; close the other program, or raise `lock_timeout`.""",
    "source.driver_missing": """The database's driver is not installed.
Drivers are extras: install the one that the message names.""",
    "source.table_or_query": """A database source names both a table and a query, or neither.
It reads exactly one of them: give `table`, or a SELECT as `query`.""",
    "source.bad_log_column": """The column that a database source is read along is not in its table or query.
A log needs a column that only grows, such as a serial number or a time of insertion; correct `log: {column: ...}`.""",
    "source.changed": """A file of which records are committed is no longer what it was: changed, shrunk, grown or
gone (L1).
Its committed rows stay in the targets and nothing of it is read, because a position in it would no longer mean
the same record. Other files run; the command exits with 4.
Put the original file back, or take the file again: `dropless backfill --split NAME`.""",
    "source.offsets_gone": """The next offset of a Kafka partition is no longer there: retention deleted records
that were never read, or the partition is shorter than what was committed (L1).
The message names topic, partition and offsets; what is there is not read, since the records before it would be lost
in silence. Bring the records back, or write down that they are lost: `lost: {TOPIC:PARTITION: OFFSET}` in the
source's settings goes on at that offset. Then lengthen the topic's retention, or run more often.""",
    "source.topic_recreated": """A Kafka topic was deleted and made again: it has the same name, and other records under
the offsets that were committed (L1).
What the old topic delivered stays, nothing of the new one is read. To take the new topic from its start as well, set
`recreated: read` for the source; to take back what the old one delivered, run with `--full`.""",
    "source.offsets_too_large": """A Kafka partition has reached an offset that a record's place cannot hold, 2 to
the 40.
Few clusters ever get there. Move on to a topic with more partitions.""",
    "source.address": """The address that the intake is to listen on cannot be had: another program listens there, or
the process may not.
Choose another with `--host` and `--port`, or end the other program.""",
    "source.nothing_to_serve": """A definition has no source that others send to.
`dropless intake` takes events for sources of the kind `intake`; all others are read by `dropless run`.""",
    "source.http_refused": """An HTTP API refused what it was asked, or answered with a page that is not as the source's
settings say.
An outage (no answer, 429, 5xx) is waited out; this would be the same on the next try. The message names the address and
the answer: correct `url`, `records`, `pagination` or `auth`, or the rights of the credentials. What was taken before
stays.""",
    "source.log_in_use": """Another process writes the log of a source: an intake that is running, or a run that fills
it.
One process at a time fills a log, or numbers of records would be given twice. End the other one, or give the source a
`log` of its own.""",
    "source.log_corrupt": """What a durable log has acknowledged cannot be read any more: a file of it is damaged or
missing (L1).
Nothing is cut off or passed over. Restore the folder that the message names from a backup; what the pipeline has
delivered stays.""",
    "source.schema_registry": """The schema registry refused what the source asked of it: it does not know the address,
the user or the way of asking.
A record whose own schema is unknown is a dead letter; this is a registry that gives no schema at all. Correct
`schema_registry`, or what its user may read.""",
    "source.no_key": """The changes of a table do not say which row they are of.
A table without a primary key, one whose changes other tables publish, or one whose key was altered while it was read.
Give it a primary key, or an index as REPLICA IDENTITY; `relation: events` reads changes as rows of their own, without a
key. Where the key was altered, `--full` begins anew under the present one.""",
    "source.slot": """A replication slot cannot be made or read as the definition says.
The message tells what is in the way: the server's `wal_level` is not logical, or the slot is of another plug-in or
database.""",
    "source.slot_in_use": """A replication slot is being read by another program.
A slot is of one source alone: whatever else reads it takes changes away from it. Name another slot, or end the other
program, whose name and process id the message has.""",
    "source.publication": """The publication is not there, does not have the table, or leaves out a part of it.
Rows, columns or kinds of changes that are not published never reach a reader, so nothing is read. Give the publication
the whole table with insert, update, delete and truncate.""",
    "source.changes_lost": """Changes after the committed ones may be lost (L1): the slot was dropped, invalidated by
`max_slot_wal_keep_size`, moved on by another program, or the publication was altered in between.
Nothing is read, since the lost changes would be passed over in silence; what is committed stays. With
`on_lost: snapshot` a new snapshot is taken: it ends rows that are gone and gives those that are there, and changes are
read from it on. `--full` begins anew.""",
    "source.other_history": """The server is not the one that the committed changes came from, or it lost some of them.
It is another cluster, or one that was brought back from a backup or promoted from a replica that was behind: the
targets hold changes that it never had. Go back to the right server, or set `on_lost: snapshot` to make them agree with
this one.""",
    "source.changes_gone": """Committed changes were asked for again, and the slot has let go of them.
A slot keeps what is not committed yet, and no more. Compare targets with the digests of the ledger
(`verify --against ledger`), or begin anew from a snapshot (`backfill --full`).""",
    "source.large_values": """A note: values of 2 kB and more that an update leaves as they were are not sent.
PostgreSQL keeps them out of line and writes to its log only what changed. A record that lacks such a value is a dead
letter of rule `COLUMN.unchanged`, never a row with NULL in its place. `ALTER TABLE ... REPLICA IDENTITY FULL` makes the
server send them.""",
    "source.slot_keeps_log": """A note: what a slot that is not read means to the server.
Without `max_slot_wal_keep_size` the server keeps its log for the slot until the disk is full; with it, a slot that is
further behind is invalidated, and its changes are lost (`source.changes_lost`).""",
}
