"""Codes of the sink family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
}
