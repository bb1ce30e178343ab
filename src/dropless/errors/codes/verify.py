"""Codes of the verify family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "verify.not_inspectable": """The sink's connector cannot show what its target holds, so it cannot be verified.
A connector answers `Sink.inspect`; one from outside may not. Compare the target with its source by other means.""",
    "verify.unpublished": """Epochs of the sink are committed and not yet published, so the target is behind.
Comparing would name rows missing that are on their way. Run the pipeline again, which publishes them first.""",
    "verify.no_such_sink": """The pipeline has no sink of that name.
The hint lists those that it has.""",
    "verify.unlike": """Two sinks were to be compared whose columns are not the same.
Rows can be compared only where the names and types of their columns agree. Compare each with its source instead.""",
}
