"""Every command on a small project, and every mistake a user can make with it: words and an exit code, no traceback."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dropless.cli.main import COMMANDS, main
from dropless.cli.reference import helps

from .conftest import Command, Said, process

HELPS = dict(helps(main, "dropless"))
LEAVES = [name for name in HELPS if not any(other.startswith(f"{name} ") for other in HELPS)]
READS_A_DEFINITION = [
    ("check",),
    ("plan",),
    ("run",),
    ("backfill",),
    ("runs",),
    ("show",),
    ("account", "--source", "orders", "--split", "x", "--position", "0"),
    ("lineage",),
    ("explain",),
    ("dead-letters", "list"),
    ("dead-letters", "show"),
    ("dead-letters", "replay"),
    ("dead-letters", "replay", "--dry-run"),
    ("dead-letters", "discard", "--reason", "x"),
]

WRITES = [("run",), ("backfill",), ("dead-letters", "replay")]


def shown(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def with_path(words: tuple[str, ...], path: str) -> list[str]:
    """The command with its definition, and a letter's id where it takes one."""
    extra = ["1-0"] if words[-1] == "show" and len(words) > 1 else []
    at = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
    return [*words[:at], path, *extra, *words[at:]]


@pytest.mark.parametrize("name", sorted(HELPS))
def test_help_says_what_the_command_does_and_shows_an_example(name: str) -> None:
    text = HELPS[name]
    assert text.splitlines()[0].startswith(f"Usage: {name} ")
    if name not in ("dropless", "dropless completion"):
        assert "Example:" in text, text


@pytest.mark.parametrize("name", LEAVES)
def test_command_offers_json(name: str) -> None:
    assert "--json" in HELPS[name] or name == "dropless completion"


def options() -> Iterator[tuple[str, click.Option]]:
    def below(command: click.Command, name: str) -> Iterator[tuple[str, click.Option]]:
        yield from ((name, p) for p in command.params if isinstance(p, click.Option))
        if isinstance(command, click.Group):
            with click.Context(command) as ctx:
                for word in command.list_commands(ctx):
                    inner = command.get_command(ctx, word)
                    assert inner is not None
                    yield from below(inner, f"{name} {word}")

    return below(main, "dropless")


def test_options_of_one_name_mean_one_thing() -> None:
    """The same option reads alike everywhere, `--limit` and `--after` of a dry run aside."""
    found: dict[str, set[str | None]] = {}
    for _, option in options():
        for word in option.opts:
            found.setdefault(word, set()).add(option.metavar)
    for word in ("--pipeline", "--workers", "--source", "--limit", "--after", "--id"):
        assert len(found[word]) == 1, word


def test_project_is_led_through_its_whole_life(shop: Path, dropless: Command) -> None:
    def ok(*args: str, code: int = 0) -> Said:
        said = dropless(*args)
        assert said.code == code, (args, said)
        return said

    assert "no problems" in ok("check").out
    assert ok("check", "--json").json["problems"] == []
    assert ok("plan", "--json").json["first_run"]
    assert "2 splits" in ok("plan").out
    run = ok("run", "--json").json
    assert run["sources"]["orders"] == {"read": 13, "quarantined": 5}
    assert run["sinks"] == {"lake": {"delivered": 7, "rows": 7}, "table": {"delivered": 0, "rows": 2}}
    assert "nothing new" in ok("run").out
    assert [r["run"] for r in ok("runs", "--json").json] == [2, 1]
    assert "succeeded" in ok("runs").out
    assert ok("show", "pipeline.yaml", "1", "--json").json["balanced"]
    assert "daily.aggregate" in ok("show", "pipeline.yaml", "1").out
    letter = "orders-2026-01-01.csv", "262"
    place = ("--source", "orders", "--split", letter[0], "--position", letter[1])
    assert ok("account", *place, "--json").json["fates"] == {"lake": "quarantined", "table": "quarantined"}
    told = ok("account", *place).out
    id = told.partition("dead letter ")[2].split()[0].rstrip(":,;.")  # Letters are numbered as workers finish.
    other = next(i for i in ("1-0", "1-1") if i != id)
    assert id in ok("dead-letters", "list").out
    assert "next page: --after 1-1" in ok("dead-letters", "list", "--limit", "2").out
    assert len(ok("dead-letters", "list", "--all", "--json").out.splitlines()) == 5
    assert "quantity is less than 1" in ok("dead-letters", "show", "pipeline.yaml", id).out
    assert ok("dead-letters", "show", "pipeline.yaml", id, "--json").json["state"] == "open"
    mended = "1004,2026-01-01 10:41:00,edsger@example.org,mug,1,7.50,paid"
    ok("dead-letters", "edit", "pipeline.yaml", id, "--text", mended)
    assert "lake: order_id=1004" in ok("dead-letters", "replay", "--dry-run", "--id", id).out
    assert ok("dead-letters", "replay", "--id", id, "--json").json["replayed"] == 1
    assert ok("dead-letters", "discard", "--id", other, "--reason", "a test", "--json").json == {"discarded": 1}
    assert "1 replayed" in ok("dead-letters", "list").out
    assert "orders.quantity" in ok("lineage", "pipeline.yaml", "sales.amount").out
    assert ok("lineage", "--json").json["sinks"].keys() == {"lake", "table"}
    assert "exactly-once" in ok("explain", "pipeline.yaml").out
    assert ok("explain", "pipeline.yaml", "--json").json["pipeline"] == "shop"
    assert ok("backfill", "--full", "--json").json["kind"] == "backfill"


@pytest.mark.parametrize("words", READS_A_DEFINITION, ids=shown)
class TestMistakes:
    def refused(self, said: Said, *codes: str, exit: int = 2) -> None:
        assert said.code == exit, said
        assert "Traceback" not in said.err + said.out
        assert any(code in said.err for code in codes), said

    def test_missing_file_is_named(self, words: tuple[str, ...], shop: Path, dropless: Command) -> None:
        self.refused(dropless(*with_path(words, "gone.yaml")), "spec.not_found")

    def test_folder_without_a_pipeline_is_named(self, words: tuple[str, ...], shop: Path, dropless: Command) -> None:
        self.refused(dropless(*with_path(words, "data")), "spec.no_pipeline")

    def test_file_that_is_no_definition_is_refused(self, words: tuple[str, ...], shop: Path, dropless: Command) -> None:
        (shop / "broken.yaml").write_text("pipeline: [")
        self.refused(dropless(*with_path(words, "broken.yaml")), "spec.yaml")
        self.refused(dropless(*with_path(words, "data/orders-2026-01-01.csv")), "spec.wrong_type", "spec.yaml")
        (shop / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01" * 20)
        self.refused(dropless(*with_path(words, "binary.yaml")), "spec.yaml")

    def test_wrong_definition_gives_all_its_problems_as_json(
        self, words: tuple[str, ...], shop: Path, dropless: Command
    ) -> None:
        text = (shop / "pipeline.yaml").read_text()
        (shop / "wrong.yaml").write_text(text.replace("csv:", "csw:").replace("from: daily", "from: dayly"))
        said = dropless(*with_path(words, "wrong.yaml"), "--json")
        assert said.code == 2
        codes = {p["code"] for p in said.json["problems"]}
        assert {"spec.unknown_connector", "spec.unknown_relation"} <= codes

    def test_several_pipelines_need_a_name(
        self, words: tuple[str, ...], shop: Path, dropless: Command, request: pytest.FixtureRequest
    ) -> None:
        text = (shop / "pipeline.yaml").read_text()
        (shop / "other.yaml").write_text(text.replace("pipeline: shop", "pipeline: other"))
        if words == ("check",):
            assert dropless("check", ".").code == 0
            return
        self.refused(dropless(*with_path(words, ".")), "spec.which_pipeline")
        self.refused(dropless(*with_path(words, "."), "--pipeline", "nothing"), "spec.which_pipeline")


@pytest.mark.parametrize("words", [w for w in READS_A_DEFINITION if w not in WRITES], ids=shown)
def test_nothing_is_made_by_a_command_that_only_reads(words: tuple[str, ...], shop: Path, dropless: Command) -> None:
    before = sorted(shop.rglob("*"))
    dropless(*with_path(words, "pipeline.yaml"))
    assert sorted(shop.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("runs",), "ledger.no_such_run"),
        (("show",), "ledger.no_such_run"),
        (("dead-letters", "list"), "ledger.no_such_run"),
        (("account", "--source", "orders", "--split", "x", "--position", "1"), "ledger.no_such_record"),
    ],
    ids=shown,
)
def test_pipeline_that_never_ran_says_so(args: tuple[str, ...], code: str, shop: Path, dropless: Command) -> None:
    said = dropless(*args)
    assert said.code == 2
    assert code in said.err
    assert "dropless run" in said.err


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("show", "pipeline.yaml", "99"), "ledger.no_such_run"),
        (("dead-letters", "show", "pipeline.yaml", "7-7"), "ledger.no_such_letter"),
        (("dead-letters", "show", "pipeline.yaml", "nonsense"), "ledger.no_such_letter"),
        (("dead-letters", "list", "--after", "nonsense"), "ledger.no_such_letter"),
        (("dead-letters", "edit", "pipeline.yaml", "1-0", "--file", "gone"), "spec.not_found"),
        (("dead-letters", "edit", "pipeline.yaml", "1-0", "--file", "data"), "spec.not_found"),
        (("account", "--source", "nobody", "--split", "x", "--position", "1"), "ledger.no_such_record"),
        (
            ("account", "--source", "orders", "--split", "orders-2026-01-01.csv", "--position", "3"),
            "ledger.no_such_record",
        ),
        (("lineage", "pipeline.yaml", "dayly"), "spec.unknown_relation"),
        (("lineage", "pipeline.yaml", "daily.revenu"), "spec.unknown_relation"),
        (("explain", "plan.guarante"), "spec.unknown_code"),
    ],
    ids=shown,
)
def test_wrong_name_is_answered_with_its_code(args: tuple[str, ...], code: str, ran: Path, dropless: Command) -> None:
    said = dropless(*args)
    assert said.code == 2
    assert code in said.err


def test_record_of_a_split_that_is_not_there_is_named(ran: Path, dropless: Command) -> None:
    said = dropless("account", "--source", "orders", "--split", "gone.csv", "--position", "3")
    assert said.code == 4
    assert "source.not_found" in said.err


@pytest.fixture
def ran(shop: Path, dropless: Command) -> Path:
    assert dropless("run").code == 0
    return shop


def test_unknown_command_is_answered_with_the_nearest(dropless: Command) -> None:
    said = dropless("chek")
    assert said.code == 2
    assert "Did you mean check?" in said.err


def test_file_without_permission_is_named(shop: Path) -> None:
    (shop / "pipeline.yaml").chmod(0)
    code = "import sys; from dropless.cli.main import main; sys.exit(main(['check']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=shop, capture_output=True, text=True, preexec_fn=bind_root)
    assert done.returncode == 2, done
    assert "spec.not_found" in done.stderr
    assert "permission denied" in done.stderr.lower()


def bind_root() -> None:
    """File permissions hold for this process and what it becomes, also where it is root's."""
    drop, overrides = 24, (1, 2)  # PR_CAPBSET_DROP; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
    for capability in overrides if os.geteuid() == 0 else ():
        if ctypes.CDLL(None, use_errno=True).prctl(drop, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the capability cannot be dropped")


def test_ledger_that_is_no_database_is_named(ran: Path, dropless: Command) -> None:
    (ran / ".dropless" / "ledger.sqlite").write_bytes(b"not a database" * 100)
    for args in (("runs",), ("run",), ("dead-letters", "list")):
        said = dropless(*args)
        assert said.code == 6, said
        assert "ledger." in said.err


def test_folder_where_nothing_can_be_written_is_named(shop: Path, dropless: Command) -> None:
    (shop / ".dropless").write_text("a file, not a folder")
    said = dropless("run")
    assert said.code in (2, 4, 6), said
    assert "ledger." in said.err or "state." in said.err


def test_reader_that_leaves_early_is_no_error(ran: Path) -> None:
    """`dropless dead-letters list --all --json | head -1`"""
    lines = "\n".join(f"{i},x,y,z,0,0,w" for i in range(20_000))
    (ran / "data" / "orders-2026-01-03.csv").write_text(
        "order_id,ordered_at,customer,product,quantity,unit_price,status\n" + lines + "\n"
    )
    assert process("run", cwd=ran).code == 0
    child = subprocess.Popen(
        [sys.executable, "-m", "dropless.cli.main", "dead-letters", "list", "--all", "--json"],
        cwd=ran,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline().startswith(b"{")
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=60) in (1, 141)
    assert said == b""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--help",), 0),
        (("check",), 0),
        (("check", "gone.yaml"), 2),
        (("run", "--json"), 0),
        (("explain", "source.changed"), 0),
        (("completion", "zsh"), 0),
        (("no-such-command",), 2),
    ],
    ids=shown,
)
def test_process_ends_with_the_code_of_who_must_act(args: tuple[str, ...], code: int, shop: Path) -> None:
    said = process(*args, cwd=shop)
    assert said.code == code, said
    assert "Traceback" not in said.err


def test_help_loads_nothing_heavy() -> None:
    """What a user waits for most often: commands import what they need when they need it."""
    heavy = "{'duckdb', 'pyarrow', 'numpy', 'sqlglot', 'rich', 'yaml', 'psycopg'}"
    script = (
        "import sys\nfrom dropless.cli.main import main\n"
        "try:\n    main(['--help'], standalone_mode=False)\nfinally:\n"
        f"    print('heavy:', sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []", done
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_count_below_a_list_is_of_what_was_asked_for(ran: Path, dropless: Command) -> None:
    listed = dropless("dead-letters", "list", "--all").out.splitlines()
    assert len(listed) > 2
    assert listed[-1].startswith(f"{len(listed) - 2} open")
    assert dropless("dead-letters", "list", "--stage", "sink:nowhere").out.strip() == "no dead letters"
