"""Fills an example's `input/` with the public data set it is about, or with look-alike data where you have no copy.

    python examples/fetch.py nightly_retail --data DIR    # DIR holds online_retail_by_day, packed (.tar.zst) or not
    python examples/fetch.py nightly_retail               # a small made-up set with the same columns and kinds of dirt

The public sets and their licences: online_retail_by_day is "Online Retail", Daqing Chen, UCI Machine Learning
Repository, CC BY 4.0, doi:10.24432/C5BW33; nyc_taxi_monthly are NYC Taxi & Limousine Commission trip records;
covid_daily_reports is the COVID-19 Data Repository by CSSE at Johns Hopkins University, CC BY 4.0.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lookalike

HERE = Path(__file__).resolve().parent
SETS = {
    "nightly_retail": ("online_retail_by_day", lookalike.retail),
    "customer_metrics": ("online_retail_by_day", lookalike.retail),
    "nightly_taxi": ("nyc_taxi_monthly", lookalike.taxi),
    "covid_reports": ("covid_daily_reports", lookalike.covid),
}


def fetch(example: str, into: Path, data: Path | None) -> str:
    """`into` holds the data of an example; says what it is. A folder that is there is replaced."""
    name, generate = SETS[example]
    shutil.rmtree(into, ignore_errors=True)
    if data is None:
        into.mkdir(parents=True)
        generate(into)
        return f"{into}: generated, with the columns and the kinds of dirt of {name}"
    if (data / name).is_dir():
        shutil.copytree(data / name, into)
        return f"{into}: copied from {data / name}"
    archive = data / f"{name}.tar.zst"
    if not archive.is_file():
        raise SystemExit(f"{data} holds neither {name}/ nor {archive.name}; without --data a look-alike is generated")
    unpack(archive, into)
    return f"{into}: unpacked from {archive}"


def unpack(archive: Path, into: Path) -> None:
    """The files of a .tar.zst without the folder they are packed in."""
    import pyarrow as pa

    with (
        pa.input_stream(str(archive), compression="zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        for member in tar:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if member.isfile() and path.parts and ".." not in path.parts:
                target = into / path
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=sorted(SETS))
    parser.add_argument("--data", type=Path, help="a folder with the public data set, packed or not")
    parser.add_argument("--into", type=Path, help="where to put it (default: input/ of the example)")
    options = parser.parse_args()
    print(fetch(options.example, options.into or HERE / options.example / "input", options.data))


if __name__ == "__main__":
    main()
