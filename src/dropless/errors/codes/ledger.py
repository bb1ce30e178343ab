"""Codes of the ledger family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "ledger.unreachable": """The PostgreSQL server that holds the ledger does not answer, or the connection was lost.
It was tried again for a while. An epoch whose commit was under way is looked for by its number when the server
answers, so it is never committed twice and never taken for committed when it is not. Bring the server back and run
again; the run goes on from the last committed epoch.""",
    "ledger.driver_missing": """The definition names a ledger in PostgreSQL, and the driver for it is not installed.
Install it with `pip install 'dropless[postgres]'`.""",
    "ledger.version": """The ledger was written by a later dropless than this one.
Reading it with an earlier program could misread facts, so nothing was opened or changed. Install the dropless
version that wrote it, or a later one.""",
    "ledger.unreadable": """The ledger is not a readable SQLite database, or pages of it are damaged, or its schema in
PostgreSQL holds the tables of something else.
Usual causes are a partial copy, a disk fault, or another program writing to it. Restore `.dropless/` as a whole
from a backup;
if there is none, move the folder away, empty the sinks and run again from the beginning.""",
    "ledger.missing": """The ledger file is absent or empty although the folder `.dropless` holds the work of a
pipeline.
Starting over silently would deliver every record a second time. Restore `ledger.sqlite` from a backup, or remove
the whole `.dropless` folder and empty the sinks to start over.""",
    "ledger.unwritable": """The ledger cannot be opened or written in this place.
Usual causes are missing permission, a read-only file system, or a file where the folder `.dropless` should be; in
PostgreSQL, a wrong address or password, a role that may not create a schema or write to it, or a read-only standby.
Make the folder of the definition writable, or correct `ledger:`.""",
    "ledger.disk_full": """There is no space left where the ledger, state or dead letters are kept.
Nothing of the epoch was committed. Free space on that file system and run again; the run goes on where it stopped.""",
    "ledger.locked": """Another process held the ledger's write lock longer than the time to wait.
A commit takes milliseconds, so usually a suspended process or a database browser holds a transaction open. End it
and run again.""",
    "ledger.unbalanced": """An epoch's records do not add up: what was read is not what was delivered, refused,
filtered and so on.
The epoch was not committed, so nothing was lost or published. This is a defect in an operator or a plug-in;
report it with the numbers in the message.""",
    "ledger.offset_gap": """An epoch's range does not begin where the last committed range of its split ended.
Committing it would skip or repeat records. The epoch was not committed; run again, and report it if it repeats.""",
    "ledger.epoch_order": """An epoch was committed out of order, or under a run that is not open.
The facts stored are unchanged. Another process may have committed meanwhile; run again.""",
    "ledger.letter_transition": """Dead letters were to change state, but they are not in the state the change
starts from.
The change was not made, so every letter is still in exactly one state. Run again; report it if it repeats.""",
    "ledger.missing_file": """A file of state or dead letters that the ledger refers to is not there.
Files under `.dropless` were removed or only partly copied. Restore the folder as a whole from a backup.""",
    "ledger.no_such_letter": """No dead letter has this id.
Ids look like `12-345` and are printed by `dead-letters list`; the letter may belong to another pipeline.""",
    "ledger.letter_state": """What was asked is not possible in the state the dead letter is in.
Only open letters can be edited, discarded or replayed; a letter that is claimed belongs to a replay that is going
on or will be resumed.""",
    "ledger.no_such_run": """No run or epoch has this number in this pipeline.
`dropless runs` lists the runs; numbers are shared by all pipelines of one ledger.""",
    "ledger.publish_order": """An epoch was to be made visible although it is held, aborted, or an earlier one waits
before it.
The decision and the stored facts contradict each other. Nothing was published; report it with the output of
`dropless runs`.""",
    "ledger.no_such_record": """Nothing is known of a record at this place.
Either the pipeline has not run, the source or split has another name, or no record begins at this position.
Positions in files are byte offsets of a record's first byte in the decompressed file; `dead-letters list` shows
some.""",
}
