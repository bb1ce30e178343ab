"""The tables of the ledger and how an older ledger becomes this version.

Facts are inserted; of what is inserted only these change: an epoch's status, a token's publication, a run's end, a
split's last known facts, and the states of letters. Everything current is derived.
"""

from __future__ import annotations

from dropless.errors import LedgerCorrupt, problem

APPLICATION = 0x64726F70
"""SQLite's application id of a ledger file."""

_V1 = """
CREATE TABLE pipelines (
  name TEXT PRIMARY KEY, generation INTEGER NOT NULL, owner TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE definitions (version TEXT PRIMARY KEY, text TEXT NOT NULL, remembered TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE contracts (digest TEXT PRIMARY KEY, text TEXT NOT NULL, remembered TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, pipeline TEXT NOT NULL REFERENCES pipelines (name),
  kind TEXT NOT NULL CHECK (kind IN ('run', 'replay', 'backfill')), definition TEXT NOT NULL, gated INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'stopped', 'failed')), reason TEXT NOT NULL,
  started TEXT NOT NULL, finished TEXT, details TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_pipeline ON runs (pipeline, id);
CREATE UNIQUE INDEX one_open_run ON runs (pipeline) WHERE status = 'running';

CREATE TABLE splits (
  id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL, number INTEGER NOT NULL, source TEXT NOT NULL, split TEXT NOT NULL,
  size INTEGER, modified INTEGER, finished INTEGER NOT NULL,
  UNIQUE (pipeline, number), UNIQUE (pipeline, source, split)
) STRICT;

CREATE TABLE epochs (
  id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL, number INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES runs (id),
  generation INTEGER NOT NULL, definition TEXT NOT NULL, contracts TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('committed', 'held', 'aborted')), resets INTEGER NOT NULL,
  committed TEXT NOT NULL,
  UNIQUE (pipeline, number)
) STRICT;
CREATE INDEX epochs_by_run ON epochs (run, number);
CREATE INDEX epochs_that_reset ON epochs (pipeline, number) WHERE resets;

CREATE TABLE ranges (
  id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL REFERENCES epochs (id), split INTEGER NOT NULL REFERENCES splits (id),
  start TEXT, next TEXT, first INTEGER NOT NULL, last INTEGER NOT NULL, records INTEGER NOT NULL, digest TEXT NOT NULL,
  finished INTEGER NOT NULL
) STRICT;
CREATE INDEX ranges_by_split ON ranges (split, id);
CREATE INDEX ranges_by_epoch ON ranges (epoch);

CREATE TABLE operators (
  epoch INTEGER NOT NULL REFERENCES epochs (id), ordinal INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
  rows_in INTEGER NOT NULL, rows_out INTEGER NOT NULL, passed INTEGER NOT NULL, held INTEGER NOT NULL,
  released INTEGER NOT NULL, fates TEXT NOT NULL, records TEXT NOT NULL, PRIMARY KEY (epoch, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE paths (
  epoch INTEGER NOT NULL REFERENCES epochs (id), source TEXT NOT NULL, sink TEXT NOT NULL, read INTEGER NOT NULL,
  held INTEGER NOT NULL, released INTEGER NOT NULL, fates TEXT NOT NULL, PRIMARY KEY (epoch, source, sink)
) STRICT, WITHOUT ROWID;

CREATE TABLE verdicts (
  epoch INTEGER NOT NULL REFERENCES epochs (id), ordinal INTEGER NOT NULL, relation TEXT NOT NULL, rule TEXT NOT NULL,
  action TEXT NOT NULL, judged INTEGER NOT NULL, failed INTEGER NOT NULL, detail TEXT NOT NULL,
  PRIMARY KEY (epoch, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
  epoch INTEGER NOT NULL REFERENCES epochs (id), sink TEXT NOT NULL, token BLOB NOT NULL,
  published TEXT, parked TEXT, forgotten TEXT,
  PRIMARY KEY (epoch, sink)
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_unpublished ON tokens (epoch) WHERE published IS NULL;

CREATE TABLE state_files (
  id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL REFERENCES epochs (id), operator TEXT NOT NULL,
  fingerprint TEXT NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('snapshot', 'delta'))
) STRICT;
CREATE INDEX state_files_by_epoch ON state_files (epoch);

-- `states` has one byte per letter: 0 open, 1 claimed, 2 replayed, 3 discarded. The four counts are of that BLOB (L7).
CREATE TABLE letter_files (
  id INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL REFERENCES epochs (id), path TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('letters', 'amendments')), count INTEGER NOT NULL, joined INTEGER NOT NULL,
  open INTEGER NOT NULL, claimed INTEGER NOT NULL, replayed INTEGER NOT NULL, discarded INTEGER NOT NULL,
  states BLOB NOT NULL,
  CHECK (kind = 'amendments' OR (open + claimed + replayed + discarded = count AND length(states) = count))
) STRICT;
CREATE INDEX letter_files_by_epoch ON letter_files (epoch);
CREATE TABLE amended (
  amendment INTEGER NOT NULL REFERENCES letter_files (id), file INTEGER NOT NULL REFERENCES letter_files (id),
  PRIMARY KEY (file, amendment)
) STRICT, WITHOUT ROWID;
CREATE TABLE transitions (
  id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL REFERENCES epochs (id),
  file INTEGER NOT NULL REFERENCES letter_files (id),
  rows BLOB NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL
) STRICT;
CREATE INDEX transitions_by_epoch ON transitions (epoch);
CREATE INDEX transitions_by_file ON transitions (file);
CREATE TABLE claims (
  file INTEGER PRIMARY KEY REFERENCES letter_files (id), run INTEGER NOT NULL REFERENCES runs (id)
) STRICT;
CREATE INDEX claims_by_run ON claims (run);
CREATE TABLE edits (
  id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES letter_files (id), row INTEGER NOT NULL, raw BLOB NOT NULL,
  author TEXT NOT NULL, at TEXT NOT NULL
) STRICT;
CREATE INDEX edits_by_letter ON edits (file, row);
CREATE TABLE discards (
  id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES letter_files (id), rows BLOB NOT NULL, reason TEXT NOT NULL,
  author TEXT NOT NULL, at TEXT NOT NULL
) STRICT;
CREATE INDEX discards_by_file ON discards (file);
"""

_V2 = """
CREATE TABLE identity (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO identity VALUES (lower(hex(randomblob(16))));
"""
# Epoch numbers mean something within one ledger only; targets remember whose numbers they hold (L4).

_V3 = """
CREATE TABLE plans (digest TEXT PRIMARY KEY, text TEXT NOT NULL, remembered TEXT NOT NULL) STRICT, WITHOUT ROWID;
ALTER TABLE epochs ADD COLUMN plan TEXT;
ALTER TABLE epochs ADD COLUMN tables TEXT NOT NULL DEFAULT '{}';
"""
# What state was made under decides whether a mended definition may go on with it; `tables` are digests of snapshots.

_V4 = """
ALTER TABLE runs ADD COLUMN purpose TEXT CHECK (purpose IN ('undo', 'repair'));
CREATE TABLE contents (
  epoch INTEGER NOT NULL REFERENCES epochs (id), sink TEXT NOT NULL, rows INTEGER NOT NULL, digest TEXT NOT NULL,
  method TEXT NOT NULL, replaces TEXT NOT NULL, PRIMARY KEY (epoch, sink)
) STRICT, WITHOUT ROWID;
CREATE TABLE undone (
  epoch INTEGER PRIMARY KEY REFERENCES epochs (id), by INTEGER NOT NULL REFERENCES epochs (id)
) STRICT;
"""
# What was given to each sink, as a digest; which epochs an undo took back (they are aborted since). A run with a
# purpose has the kind 'replay': like one it reads no ranges and is not resumed.

_V5 = """
DROP INDEX epochs_that_reset;
CREATE INDEX epochs_that_reset ON epochs (pipeline, number) WHERE resets <> 0;
"""
# The condition as every database takes it, and as the queries say it: else the index is not used.

_V6 = """
ALTER TABLE epochs ADD COLUMN times TEXT;
"""
# How far event time had come with an epoch: the offsets of time.

_V7 = """
CREATE TABLE circuits (
  pipeline TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL, failures INTEGER NOT NULL, error TEXT NOT NULL,
  since TEXT NOT NULL, PRIMARY KEY (pipeline, target)
) STRICT, WITHOUT ROWID;
"""
# What a running process says of its targets; nothing is decided by it.

MIGRATIONS = (_V1, _V2, _V3, _V4, _V5, _V6, _V7)
"""MIGRATIONS[i] turns version i into version i + 1."""
VERSION = len(MIGRATIONS)


def check(version: int, where: str) -> None:
    """Raises LedgerCorrupt `ledger.version` for a ledger of a later dropless."""
    if version > VERSION:
        message = f"{where} has version {version}, this dropless reads up to {VERSION}"
        hint = "install the dropless that wrote it, or a later one"
        raise LedgerCorrupt(problem("ledger.version", message, hint=hint))


def statements(have: int) -> list[str]:
    """What brings a ledger from version `have` to `VERSION`, for one transaction."""
    lines = [line for script in MIGRATIONS[have:] for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [s for s in "\n".join(lines).split(";") if s.strip()]
