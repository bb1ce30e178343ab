"""Codes of the plan family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
}
