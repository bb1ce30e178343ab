"""Starters: the tiny one, and those written from data, which run at once on these data."""

from __future__ import annotations

import gzip
import json
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dropless.engine.sniff import RESERVED, relation_name, relations, sniff

from .conftest import Command


def write_csv(path: Path, rows: list[tuple[object, ...]], header: str = "id,name,amount,day", sep: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header.replace(",", sep), *(sep.join(str(c) for c in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def day(i: int) -> date:
    return date(2026, 1, 1) + timedelta(days=i)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three days of orders, users as NDJSON, products as Parquet."""
    folder = tmp_path / "data"
    for i in range(3):
        rows = [(i * 100 + n, f"name {n}", n / 4, day(i)) for n in range(40)]
        write_csv(folder / f"orders-{day(i)}.csv", rows)
    users = [{"user": f"u{n}@example.org", "tags": ["a"], "at": f"2026-01-01T00:00:{n:02}Z"} for n in range(30)]
    (folder / "users.ndjson").write_text("".join(json.dumps(u) + "\n" for u in users))
    pq.write_table(
        pa.table({"sku": [f"p{n}" for n in range(30)], "stock": list(range(30))}), folder / "products.parquet"
    )
    monkeypatch.chdir(tmp_path)
    return folder


class TestTiny:
    def test_starter_runs_at_once_and_shows_dead_letters(
        self, tmp_path: Path, dropless: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        said = dropless("init", "shop")
        assert said.code == 0
        assert "next: dropless check shop/pipeline.yaml" in said.out
        assert dropless("check", "shop/pipeline.yaml").code == 0
        run = dropless("run", "shop/pipeline.yaml", "--json").json
        assert run["status"] == "succeeded"
        assert run["dead_letters"]["open"] == 5

    def test_every_command_its_comments_name_exists(self, shop: Path, dropless: Command) -> None:
        text = (shop / "pipeline.yaml").read_text() + (shop / "contracts" / "orders.odcs.yaml").read_text()
        named = {line.split("dropless ")[1].split()[0] for line in text.splitlines() if "dropless " in line}
        assert named >= {"check", "run", "dead-letters", "lineage", "contract"}
        for word in named:
            assert dropless(word, "--help").code == 0

    def test_nothing_is_overwritten_and_nothing_else_written(self, tmp_path: Path, dropless: Command) -> None:
        (tmp_path / "pipeline.yaml").write_text("mine")
        said = dropless("init", str(tmp_path))
        assert said.code == 2
        assert "spec.exists" in said.err
        assert sorted(p.name for p in tmp_path.iterdir()) == ["pipeline.yaml"]
        assert (tmp_path / "pipeline.yaml").read_text() == "mine"

    def test_folder_that_is_a_file_is_named(self, tmp_path: Path, dropless: Command) -> None:
        (tmp_path / "contracts").write_text("a file")
        said = dropless("init", str(tmp_path))
        assert said.code == 2
        assert "spec.unwritable" in said.err


class TestFromData:
    @pytest.mark.parametrize(
        "given",
        [
            ["data/orders-*.csv", "data/users.ndjson", "data/products.parquet"],
            [*(f"data/orders-2026-01-0{n}.csv" for n in (1, 2, 3)), "data/users.ndjson", "data/products.parquet"],
            ["data"],
        ],
        ids=["glob", "spelled out by the shell", "folder"],
    )
    def test_pipeline_delivers_every_record_of_the_data(self, given: list[str], data: Path, dropless: Command) -> None:
        said = dropless("init", "mine", "--json", "--from", *given)
        assert said.code == 0, said
        assert {r["name"] for r in said.json["relations"]} == {"orders", "users", "products"}
        run = dropless("run", "mine/pipeline.yaml", "--json")
        assert run.code == 0, run
        assert run.json["sources"] == {
            "orders": {"read": 120, "quarantined": 0},
            "products": {"read": 30, "quarantined": 0},
            "users": {"read": 30, "quarantined": 0},
        }
        assert {n: s["delivered"] for n, s in run.json["sinks"].items()} == {"orders": 120, "users": 30, "products": 30}

    def test_what_is_assumed_and_open_is_said(self, data: Path, dropless: Command) -> None:
        write_csv(data / "orders-2026-01-04.csv", [(900, "", 1.5, "2026-01-04")])
        said = dropless("init", "mine", "--from", "data/orders-*.csv").out
        assert "from all 121 records of 4 files" in said
        assert "assumed: 3 columns are always there" in said
        assert "no value repeats of (id)" in said
        assert "may these be missing? name (1)" in said
        assert "which column tells when it happened? day" in said

    def test_contract_of_it_has_types_and_marks_gaps(self, data: Path, dropless: Command) -> None:
        dropless("init", "mine", "--from", "data/orders-*.csv")
        text = (data.parent / "mine" / "contracts" / "orders.odcs.yaml").read_text()
        assert "{name: id, logicalType: integer, required: true}  # seen: 0 to 239" in text
        assert "perhaps primaryKey" in text
        assert "{name: day, logicalType: date, required: true}" in text
        assert dropless("contract", "check", "mine/contracts/orders.odcs.yaml").code == 0

    def test_rare_dirt_becomes_dead_letters_and_frequent_dirt_a_wider_type(
        self, tmp_path: Path, dropless: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        # More than the first MiB, from which types are found.
        rows = [(n, "x" * 60, n, day(0)) for n in range(30_000)]
        write_csv(tmp_path / "a.csv", [*rows, (1, "x", "none", day(0))])
        write_csv(tmp_path / "b.csv", [*rows, *((n, "x", n + 0.5, day(0)) for n in range(3_000))])
        said = dropless("init", "rare", "--json", "--from", "a.csv").json["relations"][0]
        assert said["refused"] == {"amount.type": 1}
        assert said["columns"]["amount"] == "BIGINT"
        assert dropless("run", "rare/pipeline.yaml", "--json").json["sources"]["a"]["quarantined"] == 1
        said = dropless("init", "often", "--json", "--from", "b.csv").json["relations"][0]
        assert said["refused"] == {}
        assert said["columns"]["amount"] == "DOUBLE"

    def test_how_text_is_written_is_found_out(
        self, tmp_path: Path, dropless: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        rows = [(n, f"M\u00fcller {n}", "NA" if n == 7 else n, day(n)) for n in range(30)]
        write_csv(tmp_path / "x.txt", rows, sep=";")
        (tmp_path / "x.txt").write_bytes((tmp_path / "x.txt").read_text().encode("windows-1252"))
        found = sniff("x.txt")
        assert found.connector == "csv"
        assert found.settings == {"delimiter": ";", "encoding": "windows-1252", "null_values": ("", "NA")}
        said = dropless("init", "mine", "--from", "x.txt")
        assert "assumed: cells are separated by ';'" in said.out
        run = dropless("run", "mine/pipeline.yaml", "--json").json
        assert run["sources"]["x"] == {"read": 30, "quarantined": 0}

    def test_file_without_header_gets_numbered_columns(
        self, tmp_path: Path, dropless: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "log.csv").write_text("".join(f"{n},{day(n)},x\n" for n in range(25)))
        said = dropless("init", "mine", "--json", "--from", "log.csv").json["relations"][0]
        assert said["columns"] == {"column0": "BIGINT", "column1": "DATE", "column2": "VARCHAR"}
        assert dropless("run", "mine/pipeline.yaml", "--json").json["sources"]["log"] == {"read": 25, "quarantined": 0}

    def test_compressed_files_are_read(
        self, tmp_path: Path, dropless: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "e.ndjson.gz").write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
        assert dropless("init", "mine", "--from", "e.ndjson.gz").code == 0
        assert dropless("run", "mine/pipeline.yaml", "--json").json["sources"]["e"]["read"] == 2

    @pytest.mark.parametrize(
        ("name", "content", "code", "exit"),
        [
            ("a.json", b'[{"a": 1}]', "spec.unknown_format", 2),
            ("empty.csv", b"", "source.no_columns", 4),
            ("a.parquet", b"no parquet at all", "source.unreadable", 4),
        ],
    )
    def test_file_that_cannot_be_a_sample_is_named(
        self,
        name: str,
        content: bytes,
        code: str,
        exit: int,
        tmp_path: Path,
        dropless: Command,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / name).write_bytes(content)
        said = dropless("init", "mine", "--from", name)
        assert said.code == exit
        assert code in said.err
        assert not (tmp_path / "mine").exists()

    def test_missing_files_are_named(self, tmp_path: Path, dropless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert "source.not_found" in dropless("init", "mine", "--from", "gone.csv").err
        assert "spec.not_found" in dropless("init", "mine", "--from", "*.csv").err
        assert "requires an argument" in dropless("init", "mine", "--from").err


class TestRelations:
    def test_files_whose_names_differ_in_digits_are_one(self, tmp_path: Path) -> None:
        for name in ("a-01.csv", "a-02.csv", "b-01.csv"):
            write_csv(tmp_path / name, [(1, "x", 2, day(0))], "id,b,c,d" if name[0] == "a" else "id,other")
        files = [str(tmp_path / n) for n in ("a-01.csv", "a-02.csv", "b-01.csv")]
        assert relations(files) == [str(tmp_path / "a-*.csv"), str(tmp_path / "b-01.csv")]

    def test_files_of_the_same_columns_are_one_where_a_glob_names_them(self, tmp_path: Path) -> None:
        for name in ("north.csv", "south.csv"):
            write_csv(tmp_path / name, [(1, "x", 2, day(0))])
        files = [str(tmp_path / n) for n in ("north.csv", "south.csv")]
        assert relations(files) == [str(tmp_path / "*.csv")]
        write_csv(tmp_path / "other.csv", [(1,)], "id")
        assert relations(files) == files

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("data/orders-2026-01-01.csv", "orders"),
            ("data/orders-*.csv.gz", "orders"),
            ("in/by-day/*.csv", "by_day"),
            ("x/order.csv", "order_rows"),
            ("2026/01.csv", "t01"),
            ("Sales Q1.parquet", "Sales_Q"),
        ],
    )
    def test_name_is_one_that_sql_takes(self, path: str, name: str) -> None:
        assert relation_name(path) == name
        assert relation_name(path, [name.upper()]) == f"{name}_2"

    def test_reserved_words_are_those_of_duckdb(self) -> None:
        import duckdb

        with duckdb.connect() as con:
            rows = con.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'")
            assert {word for (word,) in rows.fetchall()} <= RESERVED | {"pivot_wider", "pivot_longer"}
