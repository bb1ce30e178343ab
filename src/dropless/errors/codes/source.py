"""Codes of the source family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
}
