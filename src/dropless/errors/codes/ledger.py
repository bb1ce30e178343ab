"""Codes of the ledger family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
}
