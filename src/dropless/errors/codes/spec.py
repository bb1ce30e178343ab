"""Codes of the spec family: code -> its page (meaning, usual cause, remedy), in sentences."""

CODES: dict[str, str] = {
    "spec.unknown_field": """A setting is not known at this place.
Usually a slip of the pen; the message names the nearest known setting. Settings are never ignored, so remove or correct it.""",
}
