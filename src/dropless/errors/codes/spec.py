"""Codes of the spec family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "spec.unknown_field": """A setting is not known at this place.
Usually a slip of the pen; the message names the nearest known setting. Settings are never ignored, so remove or
correct it.""",
    "spec.not_found": """The definition, or a file it names, is not there or cannot be read.
Paths inside a definition are relative to the folder the definition stands in. Correct the path, or create the file.""",
    "spec.yaml": """The file is not YAML that can be read.
Usually the indentation, a missing quote, or a tab. The line is where reading stopped; the slip is there or just
above it.""",
    "spec.empty": """The file holds nothing.
A definition needs at least `pipeline`, `sources` and `sinks`. `dropless init` writes one to start from.""",
    "spec.no_pipeline": """No pipeline was found where one was looked for.
A folder needs a YAML file whose top has the key `pipeline`; a Python file needs a global that is a
`dropless.Pipeline`.""",
    "spec.duplicate_key": """One key stands twice in the same mapping, and YAML would silently drop one of them.
Usually the result of copying a block. Remove one, or rename it.""",
    "spec.wrong_type": """A value has another type than the setting takes, for instance text where a list is needed.
The message says what was found and what is expected. Numbers that are meant as text need quotes.""",
    "spec.missing_field": """A setting that has no default was not given.
The message names it and the place it belongs to. Add it.""",
    "spec.bad_value": """A value has the right type but is not one the setting takes: not among the choices, out of
range, or without meaning here.
The message lists what is allowed.""",
    "spec.bad_name": """A pipeline, source, transform or sink has a name that cannot be used in SQL as it is.
Names start with a letter or an underscore and go on with letters, digits and underscores.""",
    "spec.name_clash": """Two relations, or two pipelines of a folder, have the same name. Letter case does not tell
names apart, as in SQL.
Sources and transforms share one space of names, because SQL refers to both. Rename one.""",
    "spec.missing_connector": """A source or sink does not say which system it is.
Exactly one key of it is a connector's name, such as `csv: {path: ...}`. Add it; `dropless connectors` lists the
names.""",
    "spec.unknown_connector": """No connector has this name.
Usually a slip of the pen or a package that is not installed. The message names the nearest one.""",
    "spec.two_connectors": """One source or sink names two connectors.
Each reads or writes one system. Split it into two, or remove one.""",
    "spec.connector_unavailable": """The connector exists but could not be loaded.
Usually its driver is not installed; the message says what was missing.""",
    "spec.missing_key": """A sink with mode `upsert` has no key.
The key is the list of columns that tells rows apart: a row replaces the one with the same key. Add `key: [column,
...]`.""",
    "spec.mode_not_offered": """The sink cannot write in this mode.
File sinks append or overwrite; databases also upsert. Choose one of the modes the message lists, or another sink.""",
    "spec.unknown_relation": """A name refers to no source and no transform of this pipeline.
Usually a slip of the pen; the message names the nearest one. Names are those under `sources` and `transforms`.""",
    "spec.contract_not_found": """The contract file a source names is not there.
The path is relative to the folder of the definition. Correct it, or write one with `dropless contract infer`.""",
    "spec.missing_variable": """A value refers to a variable of the environment that is not set.
Set it, or give a default with `${NAME:-default}`. Write `$${` for a literal `${`.""",
    "spec.python_failed": """The Python file of a definition raised an exception while it was read.
The message has the exception, the place is the last line of the file that was running.""",
    "spec.function_not_found": """A transform names a Python function that is not there.
`python` is `file.py:function`, relative to the definition's folder, or `module:function` for an installed module.""",
    "spec.which_pipeline": """The path holds several pipelines and the command needs one.
Name it: `--pipeline NAME`.""",
    "spec.unknown_code": """No error has this code.
Codes look like `family.problem`; the message names the nearest.""",
    "spec.exists": """A file that a starter would write is there already, so nothing was written.
`dropless init` never overwrites what is yours. Name another folder, or move the files away.""",
    "spec.unwritable": """A file could not be written where the command was told to write it.
Usually a missing permission, a full disk, or a folder that is a file. Correct the path, or make room.""",
    "spec.unknown_format": """It could not be told how a file is to be read.
Sources read CSV, NDJSON (one JSON object a line) and Parquet, also compressed with gzip or zstd.
Convert the file; the message says how, where there is a usual way.""",
}
