"""Codes of the transform family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "transform.expression_failed": """An expression of a transform fails whatever row it is given.
Usually a constant in it is wrong, such as a pattern that is no regular expression or a literal that is no date. No
row is to blame, so none became a dead letter; correct the transform and run again.""",
    "transform.function_failed": """A Python function of a transform fails on every row, and on no rows at all, in
the same way.
Usually a name in it is misspelt or a column it reads is not there. No row is to blame, so none became a dead
letter; correct the function and run again.""",
    "transform.bad_output": """A Python function gave something that cannot be its relation: not an Arrow table,
other columns than declared, or another number of rows without the hidden column
`__at0`.
A function that drops or multiplies rows must keep the hidden columns, so that every record stays accounted for.
Correct the function, or the columns declared for it.""",
    "transform.outage": """A Python function could not reach what it needs: a file, a socket or a service.
That is no fault of the rows, so none became a dead letter. The run can be repeated once what the function needs is
there again.""",
    "transform.update_refused": """A transform fails on a row of an updating relation, that is on a result of many
records.
Such a row cannot be set aside as a dead letter, because later changes of it would miss it. Make the expression
total with TRY_CAST or CASE, or do the failing work before the aggregation, where single records can be refused.""",
    "transform.lookup_failed": """A join with a table fails whatever row is looked up.
Usually a row of the table breaks the join condition, for instance a text that is cast to a number. Correct the
table, or make the condition total with TRY_CAST.""",
    "transform.out_of_memory": """An expression of a transform needs more memory than the pipeline may use.
Usually a row is multiplied into very many or very long values. Give the pipeline more memory with `memory_mib`, or
make the expression smaller; no row became a dead letter.""",
}
