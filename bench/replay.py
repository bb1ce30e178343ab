"""Dead letters through a mended contract: a contract refuses every record, is mended, and all letters are replayed."""

from __future__ import annotations

import json
import shutil
import statistics

from bench import count, data, measure
from bench.jobs import DROPLESS, definition, expected
from bench.rounds import Bar, Place, Report, Wanted, tell

SECONDS = 60.0
LETTERS = 1_000_000
"""The bar is for this many; other numbers are held to the same rate."""
SINK = 'parquet: {path: "out"}, mode: append'


def replay(wanted: Wanted, place: Place) -> Report:
    """As many letters as rows wanted, all refused by one rule and by no other. Only the replay is measured."""
    input = data.make(place.inputs / f"ndjson-{wanted.rows}-0", "ndjson", wanted.rows, 0.0)
    strict = data.CONTRACT.replace("minimum: 1, maximum: 100", "minimum: 1000, maximum: 10000")
    assert strict != data.CONTRACT
    folder = place.scratch / "replay"
    refused, replayed = [], []
    for number in range(wanted.rounds):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        definition(input, SINK, strict)(folder)
        refused.append(measure.run([DROPLESS, "run", folder / "pipeline.yaml", "--json"], folder))
        definition(input, SINK)(folder)
        replayed.append(measure.run([DROPLESS, "dead-letters", "replay", folder / "pipeline.yaml", "--json"], folder))
        told = json.loads(replayed[-1].stdout)
        found = count.at("parquet", folder / "out")
        if told["replayed"] != wanted.rows or found != expected(input):
            raise measure.CommandFailed(f"replayed {told['replayed']}, found {found}, expected {expected(input)}")
        tell(f"  replay round {number + 1}: {replayed[-1].cpu:.2f} CPU s {replayed[-1].wall:.2f} s")
    shutil.rmtree(folder, ignore_errors=True)
    text = [
        f"### replay of {wanted.rows:,} dead letters, {wanted.rounds} rounds",
        "",
        "| | CPU s | wall s | k letters / s | peak MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, costs in (("the run that refuses them", refused), ("the replay", replayed)):
        cpu, wall = statistics.median(c.cpu for c in costs), statistics.median(c.wall for c in costs)
        peak = max(c.rss_mib for c in costs)
        text.append(f"| {name} | {cpu:.2f} | {wall:.2f} | {wanted.rows / wall / 1e3:,.0f} | {peak:,.0f} |")
    wall = statistics.median(c.wall for c in replayed)
    limit = SECONDS * wanted.rows / LETTERS
    bar = Bar(f"replay of {wanted.rows:,} letters", f"at most {limit:g} s", f"{wall:.1f} s", wall <= limit)
    facts = {"rows": wanted.rows, "cpu": [c.cpu for c in replayed], "wall": [c.wall for c in replayed]}
    return Report("\n".join(text), [bar], facts)
