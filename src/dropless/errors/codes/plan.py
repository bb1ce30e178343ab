"""Codes of the plan family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "plan.sql_syntax": (
        "The SQL of a transform or check cannot be read. "
        "Usual cause: a missing comma, bracket or keyword, or a word of another dialect. "
        "Transforms are written in DuckDB's dialect; correct the text at the line named."
    ),
    "plan.unknown_relation": (
        "A transform, check or join names a relation that is neither a source nor a transform of this pipeline. "
        "Usual cause: a misspelt name, or a source that was renamed. "
        "Name one of the pipeline's sources or transforms, or define the relation."
    ),
    "plan.unknown_column": (
        "A column is named that the relations in reach do not have. "
        "Usual cause: a misspelt name, or a column that a transform upstream no longer gives out. "
        "The message lists the nearest names; `dropless explain PIPELINE` lists the columns of every relation."
    ),
    "plan.ambiguous_column": (
        "A column name without its table could mean columns of several joined relations. "
        "Usual cause: both sides of a join have a column of this name. "
        "Write it as alias.column, or join with USING."
    ),
    "plan.duplicate_column": (
        "A relation would have two columns of the same name; case does not tell them apart. "
        "Usual cause: SELECT * over a join, or the same expression twice. "
        "Give one of them another name with AS."
    ),
    "plan.reserved_column": (
        "A column begins with two underscores and a word that dropless keeps for itself (__at0, __w, __op, "
        "__split, __position). "
        "These hidden columns carry each record's place. "
        "Rename the column in the source's `rename` or with AS."
    ),
    "plan.retention": (
        "A transform says `retention`, and no join of it can let rows go by event time. "
        "Usual cause: a side without event_time, one whose rows change, or a join without an equality. "
        "Give both sources an event_time, take a window join, or leave retention out; the join then keeps all rows."
    ),
    "plan.cycle": (
        "Transforms need each other in a circle, so none can be computed first. "
        "Usual cause: a transform that reads its own output. "
        "Break the circle; the message names its members."
    ),
    "plan.type": (
        "The SQL is well formed but does not fit the types of its columns. "
        "Usual cause: comparing or adding text and numbers, a function with other arguments, or an aggregate in a "
        "wrong place. "
        "The message is DuckDB's; add a CAST or correct the expression."
    ),
    "plan.unsupported": (
        "The SQL is valid but dropless cannot plan this part of it, and refuses it by name instead of answering "
        "differently. "
        "Usual cause: a table function, a lateral or as-of join, or a recursive query. "
        "The message says which part, and the hint says another way to write it."
    ),
    "plan.window": (
        "A window over time in FROM is not written as it must be: tumble, hop, cumulate or session. "
        "Usual cause: slide and size the wrong way round, months for a length, or a time column that holds text. "
        "The hint shows the form; a time column must be a TIMESTAMP."
    ),
    "plan.event_time": (
        "A source's `event_time` names a column that is not there or holds no time. "
        "Usual cause: a misspelt name, or a time that is read as text. "
        "Name a column of type TIMESTAMP or DATE; a contract can declare the type."
    ),
    "plan.not_incremental": (
        "A clause needs all rows at once and cannot be kept up to date as new records come. "
        "Usual cause: a window function without PARTITION BY, or a join of two logs without an equality, above a "
        "sink that is not overwritten. "
        "Use a sink with `mode: overwrite`, or partition the window or join by columns."
    ),
    "plan.nondeterministic": (
        "An expression gives another value each time it is computed, so a replayed or resumed record would differ. "
        "Usual cause: random(), uuid() or a setting of the session. "
        "Derive the value from columns, for instance md5 of the key; now() is allowed and means the start of the run."
    ),
    "plan.mode_misfit": (
        "The sink's mode cannot hold what the relation gives out. "
        "Usual cause: `append` of an aggregate, whose rows change, or `upsert` with a key that does not determine "
        "the row. "
        "The hint names the modes and keys that fit."
    ),
    "plan.key_unknown_column": (
        "A sink's key, order_by or partition_by names a column that its relation does not have. "
        "Usual cause: a misspelt name, or a column renamed in the transform. "
        "Name columns of the relation."
    ),
    "plan.check_on_updating": (
        "A check with `quarantine` stands on a relation whose rows change as records come. "
        "A row of an aggregate comes from many records, so there is no single record to refuse. "
        "Use `warn` or `stop` there, or check the relation before the aggregate."
    ),
    "plan.check_not_boolean": (
        "A row check is not a condition. "
        "Usual cause: an arithmetic expression where a comparison was meant. "
        "Write a condition that is true for good rows."
    ),
    "plan.unused": (
        "A source or transform leads to no sink and to no check, so it is not run. "
        "Usual cause: a sink that reads another relation than intended. "
        "Remove it, or name it in a sink's `from`."
    ),
    "plan.note": (
        "Something in the definition has no effect, or is planned in a way worth knowing. "
        "It is not an error. "
        "The message says what it is."
    ),
    "plan.guarantee_impossible": (
        "Exactly-once cannot hold from a source to a sink, because one of the two cannot promise its part. "
        "Usual cause: a source that cannot be read again, or a sink that can neither stage nor recognise an epoch. "
        "Put a replayable source or an idempotent sink in its place, or declare `delivery: at-least-once`."
    ),
}
