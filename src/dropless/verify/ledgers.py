"""A target against the ledger's digests: of the bytes of every published file, or of the rows that were given."""

from __future__ import annotations

from dataclasses import dataclass

from dropless.connect.rowhash import digest, method, row_hashes
from dropless.ledger.store import Ledger
from dropless.verify.expected import MASK, Expected, Side
from dropless.verify.report import Kind, Status


@dataclass(frozen=True)
class Check:
    """What the digests say. `files` are (kind, epoch, path) of files that are not as they were published."""

    status: Status
    expected: int = 0
    held: int | None = None
    files: tuple[tuple[Kind, int | None, str], ...] = ()
    notes: tuple[str, ...] = ()


def repairs(ledger: Ledger, pipeline: str) -> frozenset[int]:
    """Epochs whose files hold rows that other epochs delivered."""
    return frozenset(v.epoch for v in ledger.versions(pipeline) if v.purpose is not None)


def check(ledger: Ledger, pipeline: str, side: Side) -> Check:
    """The target against the digests that the ledger keeps."""
    tokens = [(epoch, token) for epoch, token, published in ledger.tokens(pipeline, side.name) if published]
    sealed = side.inspector.sealed(tokens)
    if sealed is not None:
        return _files(side, sealed)
    return _rows(ledger, pipeline, side)


def intact(ledger: Ledger, pipeline: str, side: Side) -> bool:
    """True where the digests show that the target holds exactly what was delivered."""
    return check(ledger, pipeline, side).status == "agrees"


def _files(side: Side, sealed: dict) -> Check:  # type: ignore[type-arg]
    there = dict(side.inspector.parts())
    found: list[tuple[Kind, int | None, str]] = []
    notes = []
    for path, seal in sorted(sealed.items()):
        if path not in there:
            found.append(("file missing", seal.epoch, path))
            continue
        now = side.inspector.seal_of(path)
        if now is None or now.size != seal.size or (seal.digest and now.digest != seal.digest):
            found.append(("file altered", seal.epoch, path))
        elif not seal.digest:
            notes.append(f"{path} was published without a digest; only its size was compared")
    for path, epoch in sorted(there.items()):
        if path not in sealed:
            found.append(("file extra", epoch if epoch >= 0 else None, path))
    return Check("differs" if found else "agrees", len(sealed), len(there), tuple(found), tuple(notes))


def _rows(ledger: Ledger, pipeline: str, side: Side) -> Check:
    own = [(epoch, c) for epoch, c in ledger.contents(pipeline) if c.sink == side.name]
    if side.mode == "upsert" or (side.mode == "overwrite" and side.sink.partition_by):
        note = f"the ledger keeps no digest of what {side.mode} leaves in a target; compare it with the source"
        return Check("unknown", notes=(note,))
    if any(c.method != method() for _, c in own):
        return Check(
            "unknown", notes=("the digests were made by another version of the hash; compare with the source",)
        )
    epochs = {epoch for epoch, _, _ in ledger.tokens(pipeline, side.name)} - repairs(ledger, pipeline)
    if side.mode == "append" and epochs - {epoch for epoch, _ in own}:
        return Check("unknown", notes=("some epochs were committed before digests were kept; compare with the source",))
    counted = [c for _, c in (own if side.mode == "append" else own[-1:])]
    rows = sum(c.rows for c in counted)
    total = sum(int(c.digest, 16) for c in counted) & MASK
    held, found = 0, 0
    parts = side.inspector.typed()
    if parts is None:
        return Check("unknown", notes=("the target keeps values in a form of its own; compare with the source",))
    names = [f.name for f in side.columns]
    try:
        for part in parts:
            held += part.num_rows
            found = (found + digest(row_hashes(part, names))) & MASK
    except ValueError as error:
        return Check("differs", rows, held, notes=(f"a row of the target is none of the relation's: {error}",))
    return Check("agrees" if (rows, total) == (held, found) else "differs", rows, held)


def otherwise(ledger: Ledger, pipeline: str, side: Side, expected: Expected) -> list[int]:
    """Epochs that delivered other rows than the recomputation gives for them."""
    own = [(epoch, c) for epoch, c in ledger.contents(pipeline) if c.sink == side.name and c.method == method()]
    if side.mode == "append":
        replaced = {e for _, c in own for e in c.replaces}
        return [
            epoch
            for epoch, c in own
            if not c.replaces and epoch not in replaced and not _same(c.rows, c.digest, expected.sums, side.name, epoch)
        ]
    if side.mode == "overwrite" and own:
        epoch, content = own[-1]
        sums = [v for (name, _), v in expected.sums.items() if name == side.name]
        last = sums[-1] if sums else (0, 0)
        return [] if (content.rows, content.digest) == (last[0], f"{last[1]:016x}") else [epoch]
    return []


def _same(rows: int, told: str, sums: dict[tuple[str, int], tuple[int, int]], sink: str, epoch: int) -> bool:
    count, total = sums.get((sink, epoch), (0, 0))
    return (rows, told) == (count, f"{total:016x}")
