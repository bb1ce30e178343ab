"""Codes of the protocol family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
}
