"""Finds the original bytes of records by their place: those in hand first, else from the source again (L1)."""

from __future__ import annotations

from collections.abc import Mapping

from dropless.connect.api import POSITION_BITS, Record, Split
from dropless.engine.refusals import Fetch
from dropless.engine.tools import Tools
from dropless.errors import ConnectorError, Problem

InHand = Mapping[int, tuple[str, str, int, Record]]


def fetcher(tools: Tools, in_hand: InHand | None) -> Fetch:
    """Returns a function from places to records; `in_hand` are those of the letters being replayed."""

    def fetch(places: list[int]) -> dict[int, tuple[str, str, int, Record]]:
        found = {}
        for place in places:
            held = (in_hand or {}).get(place)
            found[place] = held if held is not None else _again(tools, place)
        return found

    return fetch


def _again(tools: Tools, place: int) -> tuple[str, str, int, Record]:
    number, position = place >> POSITION_BITS, place & ((1 << POSITION_BITS) - 1)
    name, split = tools.setup.split_sources[number], tools.split_names[number]
    record = tools.sources[name].fetch(Split(split), position, None)
    if record is None:
        raise ConnectorError(
            Problem("source.changed", f'split "{split}" of source "{name}" has no record at {position} any more')
        )
    return name, split, number, record
