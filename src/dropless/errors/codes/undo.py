"""Codes of the undo family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "undo.not_last": """Only the last run whose epochs still count can be taken back.
A later run went on from the offsets and the state that this one left, so taking it back alone would leave a gap.
Undo the later runs first, the latest before the others.""",
    "undo.refused": """The run cannot be taken back without risk, so nothing was changed.
The message says why: rows that cannot be told from others, an older content that cannot be computed again, or work
that is not finished. The remedy is with the reason; a full backfill always brings the targets to what the sources
say.""",
}
