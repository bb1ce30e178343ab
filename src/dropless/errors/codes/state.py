"""Codes of the state family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "state.changed": (
        "What an operator remembers was kept under another definition of it. Its expressions, keys or input types were "
        "edited since, so what it remembers no longer means the same. Run with `--full` to compute it again from the "
        "beginning, or undo the edit."
    ),
    "state.unreadable": (
        "A state file that the ledger refers to is missing, cut short or damaged. The results that depend on it cannot "
        "be continued. Restore the file from a copy, or run with `--full` to compute the state again."
    ),
    "state.unwritable": (
        "A state file cannot be written: there is no room, no permission, or the folder is not a folder. Nothing of "
        "the epoch was committed. Make room or set permissions in the folder `.dropless` beside the definition, then "
        "run again."
    ),
    "state.out_of_memory": (
        "Keeping a result up to date needs more memory than the pipeline may use, although it spills to disk. Usually "
        "one key has very many rows. Nothing of the epoch was committed; give the pipeline more memory with "
        "`memory_mib`, or narrow the columns that the result is made of."
    ),
    "state.expression_failed": (
        "A result that is kept up to date cannot be computed: a sum is too large for its type, or an expression over "
        "many rows fails. The result belongs to many records, so none can be set aside as a dead letter; nothing of "
        "the epoch was committed. Make the expression total with TRY_CAST or CASE, use a wider type, or do the failing "
        "work before the aggregation."
    ),
    "state.check_failed": (
        "The query of a check over a whole relation cannot be evaluated. It fails on the data at hand, or gives more "
        "than one value. Nothing of the epoch was committed; correct the query."
    ),
}
