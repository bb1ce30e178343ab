"""Codes of the contract family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "contract.not_found": """A contract file cannot be found or read.
The path in the definition is relative to the definition's folder. Correct the path or the file's permissions.""",
    "contract.yaml": """The contract is not readable YAML.
The message names the line and what the YAML reader expected there. Correct the text.""",
    "contract.empty": """The contract file is empty.
Write a contract, or let `dropless contract infer FILE` write one from data.""",
    "contract.duplicate_key": """A key stands twice in one mapping.
YAML would silently keep one of the two. Remove the one that is not meant.""",
    "contract.unknown_field": """A key is not one of the Open Data Contract Standard at this place.
Usually a slip of the pen; the message names the nearest known key. Extensions belong under customProperties.""",
    "contract.missing_field": """A key that the standard requires is absent.
Add it; the message names the place.""",
    "contract.wrong_type": """A value has another kind than the standard gives it.
The message says what was expected and what was found.""",
    "contract.bad_value": """A value is not among those allowed here.
The message lists what is allowed, or why the value cannot be used.""",
    "contract.bad_version": """The contract names a version of the standard that is not understood.
Versions 3.0 to 3.2 are read. Migrate the contract, or correct apiVersion.""",
    "contract.no_such_schema": """The contract has no schema of the name asked for, or several and none was chosen.
Name one in the definition: `contract: {path: ..., schema: NAME}`.""",
    "contract.unsupported": """The contract asks for something that cannot be judged here.
A rule that would be silently ignored is worse than none, so it is refused. The message names a way to say the same.""",
    "contract.unknown_column": """A rule names a column that the schema does not have.
Usually a slip of the pen; the message names the nearest column. Conditions use the names of the schema's
properties.""",
    "contract.bad_condition": """A rule's condition is not a condition DuckDB can evaluate over one record.
The message is DuckDB's own. Aggregates and subqueries do not belong in a row condition.""",
    "contract.bad_pattern": """A pattern is not a regular expression of the RE2 kind.
Look-around and back-references are not available. Rewrite the pattern.""",
    "contract.option_misfit": """An option has no meaning for the property's logical type.
For instance minLength on an integer. Remove it or correct the logical type.""",
    "contract.duplicate_name": """Two properties of an object, or two rules, have one name.
Letter case does not tell properties apart, as in SQL. Dead letters and verdicts name rules, so these must differ
too.""",
    "contract.breaking": """A version of a contract takes away what readers of the older one rely on.
For instance a column is gone or has another type, a value may now be missing, or an enumeration has new values.
Keep the promise, or publish the contract under another id so that readers can move at their own time.""",
}
