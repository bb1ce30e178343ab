"""Codes of the protocol family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "protocol.busy": """Another process is running this pipeline.
Two runners would take the same records twice, so the second is refused. Wait for it, end it, or take over with
`--take-over`: the other can then commit nothing more.""",
    "protocol.fenced": """Another runner took this pipeline over, so this one may neither commit nor publish.
What this run had committed before stays and is published by the other; what it had only prepared is dropped.
Nothing needs to be done.""",
    "protocol.unfinished": """A run of this pipeline was interrupted, and what was asked for must wait until it is
finished.
Epochs of a run and of a replay cannot be mixed. Run the pipeline once: it resumes the interrupted run and ends it.""",
}
