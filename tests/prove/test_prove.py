"""`dropless prove` on a whole pipeline, and the promise that it touches nothing but its scratch copy."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dropless.engine.project import load_one
from dropless.engine.run import Options as RunOptions
from dropless.engine.run import run
from dropless.errors import ConnectorError, DefinitionError
from dropless.prove.campaign import Options, prove

from . import shop


def digest(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder with its content and time."""
    return {
        str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def dropless(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dropless.cli.main", *arguments]
    env = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=170)


def test_pipeline_is_proven_and_nothing_real_is_touched(tmp_path: Path) -> None:
    """The real targets hold rows, the ledger a run, the folder an input: none of it changes by a byte."""
    definition = shop.make(tmp_path / "shop")
    run(load_one(definition), RunOptions(workers=1))
    before = digest(tmp_path)
    certificate = prove(load_one(definition), Options(seed=4, kills=4, folder=tmp_path / "scratch", jobs=1))
    assert certificate.verdict == "proven", certificate.to_json()
    assert certificate.kills >= 3
    assert set(certificate.kinds) >= {"disk-full", "refusing-sink", "second-runner", "stale-runner", "reorder"}
    assert not (tmp_path / "scratch").exists()
    assert digest(tmp_path) == before


def test_same_seed_gives_the_same_kills(tmp_path: Path) -> None:
    definition = shop.make(tmp_path / "shop")
    options = Options(seed=11, kills=3, points=("kill", "commit.before", "publish.after"), jobs=1, twice=False)
    one, again = (prove(load_one(definition), options) for _ in range(2))
    assert one.points == again.points
    assert one.kills == again.kills > 0
    assert one.again == "--seed 11 --kills 3 --points kill --points commit.before --points publish.after"


def test_control_arm_is_found_out(tmp_path: Path) -> None:
    definition = shop.make(tmp_path / "shop")
    certificate = prove(
        load_one(definition),
        Options(seed=2, kills=3, points=("kill", "commit.after", "read"), control=True, jobs=1, twice=False),
    )
    assert certificate.verdict == "control failed as it must"
    assert certificate.exit_code == 0
    assert certificate.wrong["duplicated"] > 0


def test_command_prints_a_verdict_and_writes_its_certificate(tmp_path: Path) -> None:
    shop.make(tmp_path)
    done = dropless(tmp_path, "prove", "--seed", "3", "--kills", "2", "--points", "kill", "--json", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["verdict"], told["seed"], told["pipeline"]) == ("proven", 3, "shop")
    assert told["kills"] == sum(p["kills"] for p in told["points"].values())
    assert {w: told["wrong"][w] for w in ("lost", "duplicated", "foreign", "early", "unbalanced")} == dict.fromkeys(
        ("lost", "duplicated", "foreign", "early", "unbalanced"), 0
    )
    written, page = (Path(tmp_path, f) for f in told["files"])
    assert json.loads(written.read_text())["seed"] == 3
    text = page.read_text()
    assert "proven" in text
    assert not re.search(r"(?:src|href)=|https?://|@import", text), "the page needs nothing else"


@pytest.mark.parametrize("connector", ["csv", "ndjson", "parquet", "sqlite", "duckdb"])
def test_data_are_generated_where_there_are_none(tmp_path: Path, connector: str) -> None:
    definition = shop.make(tmp_path)
    shutil.rmtree(tmp_path / "input")
    (tmp_path / "input").mkdir()
    if connector in ("sqlite", "duckdb"):
        source = f"{connector}: {{path: input/orders.db, table: orders, log: {{column: id}}}}"
    else:
        source = f'{connector}: {{path: "input/*.{connector}"}}'
    definition.write_text(shop.DEFINITION.replace('csv: {path: "input/*.csv"}', source))
    options = Options(seed=5, kills=1, points=("kill", "commit.before"), jobs=1, twice=False)
    certificate = prove(load_one(definition), options)
    assert certificate.verdict == "proven", certificate.to_json()
    assert certificate.read >= 600
    assert certificate.letters > 20
    assert sum(s.rows for s in certificate.sinks) > 100
    assert any("generated from contract shop.orders" in note for note in certificate.notes)
    assert not list((tmp_path / "input").iterdir())


def test_real_tables_constraints_hold_in_the_scratch_copy(tmp_path: Path) -> None:
    """A target that refuses rows refuses them in the copy as well: their letters are part of what is compared."""
    definition = shop.make(tmp_path, shop.DEFINITION.replace("sqlite: {path: shop.sqlite, table: daily}, mode: upsert, "
                           "key: [day, country]", "sqlite: {path: shop.sqlite, table: kept}, mode: append")
                           .replace("{from: daily, sqlite", "{from: kept, sqlite"))  # fmt: skip
    con = sqlite3.connect(tmp_path / "shop.sqlite")
    con.execute("CREATE TABLE kept (id, day, country, amount, points INTEGER NOT NULL) STRICT".replace(" STRICT", ""))
    con.execute("CREATE UNIQUE INDEX one ON kept (id)")
    con.commit()
    con.close()
    before = digest(tmp_path)
    options = Options(seed=5, kills=2, points=("kill", "publish.before"), jobs=1, twice=False)
    certificate = prove(load_one(definition), options)
    assert certificate.verdict == "proven", certificate.to_json()
    assert digest(tmp_path) == before


def test_postgres_works_in_a_schema_of_its_own_and_leaves_none(
    tmp_path: Path, postgres: Any, postgres_database: str
) -> None:
    url = postgres.url(postgres_database)
    definition = shop.make(
        tmp_path,
        shop.DEFINITION.replace(
            "sqlite: {path: shop.sqlite, table: daily}", f'postgres: {{url: "{url}", table: daily}}'
        ),
    )
    run(load_one(definition), RunOptions(workers=1))
    rows = "SELECT * FROM daily ORDER BY day, country"
    marks = "SELECT epoch, generation, updated_at FROM _dropless"
    before = [postgres.execute(q, postgres_database) for q in (rows, marks)]
    options = Options(seed=6, kills=2, points=("kill", "publish.after[summary]"), jobs=1, twice=False)
    certificate = prove(load_one(definition), options)
    assert certificate.verdict == "proven", certificate.to_json()
    assert certificate.points == {"publish.after[summary]": {"kills": 2, "failed": 0}}
    assert [postgres.execute(q, postgres_database) for q in (rows, marks)] == before
    left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dropless_prove%'"
    assert postgres.execute(left, postgres_database) == []
    assert url not in certificate.to_html() + json.dumps(certificate.to_json())


FENCED = """
import os, sys
from pathlib import Path
from dropless.prove.plant import fence_in

inside, outside = Path("inside"), Path("outside")
fence_in(inside)
attempts = {
    "write": lambda: (outside / "new").write_text("x"),
    "append": lambda: (outside / "rows.csv").open("a"),
    "remove": lambda: (outside / "rows.csv").unlink(),
    "take": lambda: (outside / "rows.csv").rename(inside / "rows.csv"),
    "put": lambda: (inside / "old").rename(outside / "old"),
    "link": lambda: os.link(inside / "old", outside / "old"),
    "make": lambda: (outside / "folder").mkdir(),
    "cut": lambda: os.truncate(outside / "rows.csv", 0),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
        done.append(name)
    except PermissionError:
        pass
(inside / "new").write_text((outside / "rows.csv").read_text())
print(done)
"""


def test_process_that_is_fenced_in_cannot_write_outside(tmp_path: Path) -> None:
    """The law that real targets are never touched, asked of a process itself."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "old").write_text("old")
    (outside / "rows.csv").write_text("id\n1\n")
    done = subprocess.run([sys.executable, "-c", FENCED], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert [p.name for p in outside.iterdir()] == ["rows.csv"]
    assert (outside / "rows.csv").read_text() == (inside / "new").read_text() == "id\n1\n"


# ---------------------------------------------------------------- what a user can get wrong


def test_unknown_point_is_named(tmp_path: Path) -> None:
    shop.make(tmp_path)
    done = dropless(tmp_path, "prove", "--points", "comit.before")
    assert done.returncode == 2
    assert 'prove.unknown_point: there is no point "comit.before"' in done.stderr


def test_source_without_data_and_contract_is_refused(tmp_path: Path) -> None:
    definition = shop.make(tmp_path, "pipeline: empty\nsources: {orders: {csv: {path: 'input/*.csv'}}}\n"
                           "sinks: {lake: {from: orders, csv: {path: lake}, mode: append}}\n")  # fmt: skip
    project = load_one(definition)
    shutil.rmtree(tmp_path / "input")
    (tmp_path / "input").mkdir()
    with pytest.raises(DefinitionError, match=r"prove\.no_data"):
        prove(project, Options(seed=1, kills=1))


def test_sink_without_a_scratch_copy_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    project = load_one(shop.make(tmp_path))
    sinks = {n: replace(s, connector="smtp") for n, s in project.spec.sinks.items()}
    odd = replace(project, spec=replace(project.spec, sinks=sinks))
    with pytest.raises(DefinitionError, match=r"prove\.unsupported_sink"):
        prove(odd, Options(seed=1, kills=1))


def test_baseline_that_fails_is_said_to(tmp_path: Path) -> None:
    """A target that is in the way of the undisturbed run: there is nothing to compare with."""
    definition = shop.make(tmp_path)
    con = sqlite3.connect(tmp_path / "shop.sqlite")
    con.execute("CREATE TABLE daily (something_else INTEGER NOT NULL)")
    con.commit()
    con.close()
    with pytest.raises(DefinitionError, match=r"prove\.baseline_failed: .*sink\.schema_mismatch"):
        prove(load_one(definition), Options(seed=1, kills=1, jobs=1))


def test_certificate_that_cannot_be_written_is_said_to(tmp_path: Path) -> None:
    from dropless.cli.prove import _write

    certificate = type("Certificate", (), {"to_json": lambda _: {}, "to_html": lambda _: ""})()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConnectorError, match=r"prove\.unwritable"):
        _write(certificate, tmp_path / "file" / "proof")
