"""Codes of the contract family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
}
