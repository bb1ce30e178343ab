"""Codes of the prove family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "prove.unsupported_sink": (
        "`dropless prove` cannot make a scratch copy of this kind of sink, so it would have to write to the real "
        "target, which it never does. "
        "Usual cause: a sink from a plug-in. "
        "Prove a copy of the definition whose sink is a file, DuckDB, SQLite or PostgreSQL."
    ),
    "prove.no_data": (
        "There is nothing to run the proof on: the source has no data to sample and none can be made up. "
        "Usual cause: an input folder that is still empty, in a definition without a contract. "
        "Put a file there, or give the source a contract, from which data are generated."
    ),
    "prove.baseline_failed": (
        "The run that nothing disturbs does not succeed over the sample, so there is nothing to compare with. "
        "Usual cause: what the message says, such as a query that needs more data than the sample has. "
        "Make `dropless run` succeed on a small input first."
    ),
    "prove.unwritable": (
        "The proof is done, but its certificate cannot be written where it should go. "
        "Usual cause: a folder that may not be written, or a full disk. "
        "Name another place with --certificate; the same seed gives the same proof."
    ),
    "prove.unknown_point": (
        "`--points` names neither a kind of fault nor an instant that processes can be killed at. "
        "Usual cause: a misspelt name. "
        "The message lists the names; an instant may name its sink, as in publish.before[lake]."
    ),
}
