"""What a page says a command prints is what it prints."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import console
import pytest

import fetch

pytestmark = pytest.mark.timeout(400)

# Measured apart from this project; the rules of the contracts that look for each kind of dirt.
DIRT = {
    "nightly_retail": {
        "customer_is_known": 135_080,
        "customer_is_a_whole_number": 406_829,
        "is_no_cancellation": 9_288,
        "is_no_bad_debt": 3,
        "UnitPrice.minimum": 2,
        "quantity_is_positive": 10_624,
        "return_is_a_cancellation": 1_336,
        "price_is_not_zero": 2_515,
        "Description.required": 1_454,
        "description_is_trimmed": 113_452,
        "description_is_no_stock_note": 551,
        "stock_code_is_an_article": 2_995,
        "line_is_not_repeated": 5_268,
        "article_is_once_on_an_invoice": 10_684,
        "quantity_is_no_slip_of_the_finger": 5,
        "country_is_given": 446,
    },
    "nightly_taxi": {
        "meter_data_is_there": 8_244,
        "congestion_surcharge_is_there": 126_327,
        "fare_amount.minimum": 833,
        "total_amount.minimum": 832,
        "distance_is_positive": 4_205,
        "dropoff_is_not_before_pickup": 136,
        "ride_takes_time": 309,
        "rate_code_is_known": 16,
        "somebody_rides": 7_111,
        "pickup_zone_is_known": 4_348,
    },
    "covid_reports": {
        "active.minimum": 1_476,
        "deaths_are_there": 441,
        "recovered_are_there": 388,
        "active_is_there": 82,
        "confirmed_is_there": 19,
        "time_is_not_american": 22_335,
        "time_has_no_t": 7_057,
    },
}


def expect_shown(page: Path, folder: Path) -> None:
    blocks = console.worked_through(page.read_text(), folder)
    assert any(blocks)
    for shown in itertools.chain(*blocks):
        assert console.same(shown.now) == console.same(shown.said), shown.command


def test_readme_shows_the_definition_of_the_shop_example_and_what_it_prints(tmp_path: Path) -> None:
    readme = console.ROOT / "README.md"
    folder = console.copied("shop", tmp_path)
    yaml = re.findall(r"^```yaml\n(.*?)^```$", readme.read_text(), re.M | re.S)
    assert yaml == [(folder / "pipeline.yaml").read_text()]
    expect_shown(readme, folder)


@pytest.mark.parametrize("name", sorted(fetch.SETS))
def test_readme_of_an_example_shows_what_its_commands_print_on_the_public_data(name: str, tmp_path: Path) -> None:
    if not (console.DATA / f"{fetch.SETS[name][0]}.tar.zst").exists():
        pytest.skip("the public data is not at hand; the look-alike is judged in test_examples.py")
    folder = console.copied(name, tmp_path)
    fetch.fetch(name, folder / "input", console.DATA)
    expect_shown(console.ROOT / "examples" / name / "README.md", folder)


@pytest.mark.parametrize("page", sorted(console.GUIDES.glob("*.md")), ids=lambda page: page.stem)
def test_guide_shows_what_its_commands_print(page: Path, tmp_path: Path) -> None:
    expect_shown(page, console.guide_folder(page, tmp_path))


@pytest.mark.parametrize("name", sorted(DIRT))
def test_readme_of_an_example_shows_the_dirt_that_was_counted_apart(name: str) -> None:
    text = (console.ROOT / "examples" / name / "README.md").read_text()
    found = dict(re.findall(r"^\w+ +(\S+) +(?:quarantine|warn) +([\d,]+) ", text.split("dead letters: ")[0], re.M))
    assert {rule: int(found[rule].replace(",", "")) for rule in DIRT[name]} == DIRT[name]
