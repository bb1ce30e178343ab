"""A bounded sample of every source in a scratch folder, small enough to be run through hundreds of times.

Files keep their names, so that splits do; what is cut is cut at a line's end. Where a source has nothing to sample,
data are generated from its contract. The real sources are read and never written.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dropless.connect.api import Source, Split
from dropless.connect.config import Secret
from dropless.engine.project import Project
from dropless.errors import ConnectorError, DefinitionError, problem
from dropless.prove import followed, generate, targets, topics
from dropless.spec.model import SourceSpec

FOLDER = "sources"
FILES = ("csv", "ndjson", "parquet")
SAMPLE_BYTES = 192 << 10
SAMPLE_ROWS = 2_000
MOST_SPLITS = 12
WHOLE_DATABASE = 8 << 20
"""A database file up to this size is copied whole; of a larger one the table's first rows are."""
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass
class Sample:
    """Where the scratch copy reads from, how much that is, and what is worth saying about it."""

    sources: dict[str, SourceSpec] = field(default_factory=dict)
    bytes: int = 0
    notes: list[str] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)


def take(project: Project, folder: Path, schema: str, url: str | None, seed: int, generate_all: bool = False) -> Sample:
    """Every source has a sample below `folder/sources`. Raises DefinitionError `prove.no_data` where it cannot."""
    sample = Sample()
    for name, spec in project.spec.sources.items():
        (folder / FOLDER / name).mkdir(parents=True)
        source = project.source(name)
        try:
            taken = None if generate_all else _sampled(project, spec, source, folder, schema, url, sample)
        finally:
            source.close()
        sample.sources[name] = taken or _generated(project, spec, folder, schema, url, seed, sample)
    return sample


def measure(project: Project) -> int:
    """The bytes that a run reads from the scratch copy's logs, as a run counts them."""
    total = 0
    for name in project.spec.sources:
        if project.shapes[name] == "table":
            continue
        source = project.source(name)
        for split in source.splits():
            reader = source.open(split, None)
            while (chunk := reader.read()) is not None and chunk.start != chunk.next:
                total += getattr(chunk.data, "nbytes", None) or len(chunk.data)
            reader.close()
        source.close()
    return total


def _sampled(
    project: Project,
    spec: SourceSpec,
    source: Source[Any],
    folder: Path,
    schema: str,
    url: str | None,
    sample: Sample,
) -> SourceSpec | None:
    """The sampled source; None where there is nothing to sample."""
    into = folder / FOLDER / spec.name
    try:
        if spec.connector in FILES:
            return _files(spec, source, into, sample)
        if spec.connector in targets.DATABASES:
            return _database(project, spec, into)
        if followed.is_followed(spec) and spec.config.changes.relation == "table":
            return followed.sample(spec, schema, url, SAMPLE_ROWS // 4)
        if spec.connector == "postgres" and not followed.is_followed(spec):
            return _postgres(spec, schema, url)
        if spec.connector == "kafka":
            return _topics(spec, project.spec.folder, schema)
    except ConnectorError as error:
        if error.code != "source.not_found":
            raise
        return None
    text = f'prove cannot sample source "{spec.name}": it does not know how to for "{spec.connector}"'
    raise DefinitionError(problem("prove.no_data", text, project.spec.place("sources", spec.name)))


# ---------------------------------------------------------------- files


def _files(spec: SourceSpec, source: Any, into: Path, sample: Sample) -> SourceSpec | None:
    splits = [s for s in source.splits() if not any(p.startswith(".") for p in s.id.split("/"))]
    if not splits:
        return None
    chosen = _spread(splits, MOST_SPLITS)
    most = SAMPLE_BYTES // len(chosen)
    cut = 0
    for split in chosen:
        target = into / split.id
        target.parent.mkdir(parents=True, exist_ok=True)
        if split.size is not None and split.size <= most:
            with source.location.open(source.location.path_of(split.id)) as file:
                target.write_bytes(file.read())
            continue
        cut += 1
        if spec.connector == "parquet":
            _parquet_head(source, split, target)
        else:
            _text_head(spec, source, split, target, most)
    if cut or len(chosen) < len(splits):
        sample.notes.append(f'source "{spec.name}": {len(chosen)} of {len(splits)} files, {cut} of them cut')
    return _local(spec)


def _local(spec: SourceSpec) -> SourceSpec:
    plain = {"endpoint": None, "region": None, "access_key": None, "secret_key": None}
    return replace(spec, config=replace(spec.config, path=f"{FOLDER}/{spec.name}", **plain))


def _spread(splits: Sequence[Split], most: int) -> list[Split]:
    if len(splits) <= most:
        return list(splits)
    return [splits[i * len(splits) // most] for i in range(most)]


def _text_head(spec: SourceSpec, source: Any, split: Split, target: Path, most: int) -> None:
    import pyarrow as pa

    with source.location.open(source.location.path_of(split.id)) as file:
        head = file.read(4)
        kind = next((k for magic, k in _MAGIC.items() if head.startswith(magic)), None)
        wide = getattr(spec.config, "encoding", "utf-8").lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        if kind is None:
            data = head + file.read(most if not wide else (64 << 20))
        else:
            packed = pa.input_stream(pa.BufferReader(head + file.read()), compression=kind)
            data = packed.read(most if not wide else (64 << 20))
    if not wide:
        data = data[: data.rfind(b"\n") + 1] or data
    if kind is None:
        target.write_bytes(data)
    else:
        with pa.output_stream(str(target), compression=kind) as out:
            out.write(data)


def _parquet_head(source: Any, split: Split, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(source.location.open_arrow(source.location.path_of(split.id))) as file:
        batch = next(file.iter_batches(SAMPLE_ROWS // 4), None)
        table = pa.Table.from_batches([batch] if batch is not None else [], schema=file.schema_arrow)
    pq.write_table(table, target, row_group_size=100)


# ---------------------------------------------------------------- databases


def _database(project: Project, spec: SourceSpec, into: Path) -> SourceSpec | None:
    real = project.spec.folder / spec.config.path
    if not real.exists():
        return None
    copy = into / real.name
    whole = real.stat().st_size <= WHOLE_DATABASE or spec.config.query is not None
    if spec.connector == "sqlite":
        _copy_sqlite(real, copy, None if whole else spec.config.table, spec.config.log)
    else:
        _copy_duckdb(real, copy, None if whole else spec.config.table, spec.config.log)
    return replace(spec, config=replace(spec.config, path=Path(FOLDER) / spec.name / real.name))


def _copy_sqlite(real: Path, copy: Path, table: str | None, log: Any) -> None:
    with closing(sqlite3.connect(f"file:{real}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as into:
        if table is None:
            source.backup(into)
            return
        for (sql,) in source.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND type = 'table' AND sql IS NOT NULL", (table,)
        ):
            into.execute(sql)
        quoted = '"' + table.replace('"', '""') + '"'
        order = f' ORDER BY "{log.column}"' if log else ""
        rows = source.execute(f"SELECT * FROM {quoted}{order} LIMIT {SAMPLE_ROWS}").fetchall()
        if rows:
            into.executemany(f"INSERT INTO {quoted} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        into.commit()


def _copy_duckdb(real: Path, copy: Path, table: str | None, log: Any) -> None:
    import duckdb

    if table is None:
        for path in (real, real.with_name(real.name + ".wal")):
            if path.exists():
                shutil.copyfile(path, copy.with_name(path.name))
        return
    schema, _, name = table.rpartition(".")
    order = f' ORDER BY "{log.column}"' if log else ""
    with duckdb.connect(str(copy), config={"threads": 1}) as con:
        con.execute(f"ATTACH '{str(real).replace(chr(39), chr(39) * 2)}' AS theirs (READ_ONLY)")
        found = con.execute(
            "SELECT sql FROM duckdb_tables() WHERE database_name = 'theirs' AND lower(table_name) = lower(?)", [name]
        ).fetchone()
        where = f'"{schema or "main"}"."{name}"'
        if schema:
            con.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        rows = f"SELECT * FROM theirs.{where}{order} LIMIT {SAMPLE_ROWS}"
        if found:
            con.execute(str(found[0]).replace("theirs.", ""))
            con.execute(f"INSERT INTO {where} {rows}")
        else:
            con.execute(f"CREATE TABLE {where} AS {rows}")
        con.execute("DETACH theirs")


def _postgres(spec: SourceSpec, schema: str, url: str | None) -> SourceSpec:
    """The first rows as a table of the same column types in the scratch schema."""
    base = f"({spec.config.query})" if spec.config.query else '"' + spec.config.table.replace(".", '"."') + '"'
    order = f' ORDER BY "{spec.config.log.column}"' if spec.config.log else ""
    target = f'"{schema}"."{spec.name}"'
    with targets.connect(spec.config.url.reveal()) as source, targets.connect(url or spec.config.url.reveal()) as into:
        cursor = source.execute(f"SELECT * FROM {base} AS t LIMIT 0")
        types = [
            source.execute("SELECT format_type(%s, NULL)", (c.type_code,)).fetchall()[0][0] for c in cursor.description
        ]
        columns = ", ".join(f'"{c.name}" {t}' for c, t in zip(cursor.description, types, strict=True))
        into.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        into.execute(f"CREATE TABLE {target} ({columns})")
        rows = f"COPY (SELECT * FROM {base} AS t{order} LIMIT {SAMPLE_ROWS}) TO STDOUT"
        with source.cursor().copy(rows) as out, into.cursor().copy(f"COPY {target} FROM STDIN") as back:
            for block in out:
                back.write(block)
    config = replace(spec.config, table=f"{schema}.{spec.name}", query=None)
    return replace(spec, config=replace(config, url=Secret(url)) if url else config)


def _topics(spec: SourceSpec, folder: Path, schema: str) -> SourceSpec | None:
    """The first records of every topic as a scratch topic, which ends where it ends."""
    names = topics.names_of(spec.config, folder)
    made = []
    for name in names:
        into = topics.scratch_name(schema, f"{spec.name}.{name}")
        if topics.copy(spec.config, folder, name, into, SAMPLE_ROWS // len(names)):
            made.append(into)
    return _of_topics(spec, made, folder) if made else None


def _of_topics(spec: SourceSpec, names: Sequence[str], folder: Path) -> SourceSpec:
    plain: dict[str, Any] = {"pattern": None, "start": "earliest", "lost": {}, "group": None, "bounded": True}
    return replace(spec, config=replace(topics.rooted(spec.config, folder), topic=tuple(names), **plain))


# ---------------------------------------------------------------- generated


def _generated(
    project: Project, spec: SourceSpec, folder: Path, schema: str, url: str | None, seed: int, sample: Sample
) -> SourceSpec:
    contract = project.contracts[spec.name]
    if contract is None:
        text = f'source "{spec.name}" has no data to sample and no contract to generate some from'
        hint = "put a file there, or give the source a contract"
        raise DefinitionError(problem("prove.no_data", text, project.spec.place("sources", spec.name), hint=hint))
    into = folder / FOLDER / spec.name
    log = getattr(spec.config, "log", None)
    made = generate.rows(contract, seed, ordered=log.column if log else None)
    sample.generated.append(spec.name)
    sample.notes.append(f'source "{spec.name}": {len(made):,} records generated from contract {contract.id}')
    write: dict[str, Callable[..., None]] = {
        "csv": generate.write_csv,
        "ndjson": generate.write_ndjson,
        "parquet": generate.write_parquet,
    }
    if spec.connector in write:
        own, rows, below = generate.in_files(spec.config.metadata, contract.fields, made)
        (into / below).mkdir(parents=True, exist_ok=True)
        write[spec.connector](spec.config, own, rows, into / below)
        return _local(spec)
    if spec.connector in targets.DATABASES:
        path = into / targets.DATABASES[spec.connector]
        generate.write_database(
            spec.connector, path, contract.fields, made, spec.config.table or spec.name, log and log.column
        )
        settings = {f.name for f in fields(spec.config)}
        table = {"table": spec.config.table or spec.name, "query": None} if "query" in settings else {}
        return replace(spec, config=replace(spec.config, path=path.relative_to(folder), **table))
    if spec.connector == "postgres" and not followed.is_followed(spec):
        address = url or spec.config.url.reveal()
        with targets.connect(address) as con:
            generate.write_postgres(con, schema, spec.name, contract.fields, made, log and log.column)
        config = replace(spec.config, table=f"{schema}.{spec.name}", query=None, url=Secret(address))
        return replace(spec, config=config)
    if spec.connector == "kafka" and spec.config.format == "json":
        name = topics.scratch_name(schema, spec.name)
        values = generate.json_values(spec.config.rename, contract.fields, made, spec.config.metadata)
        topics.write(spec.config, project.spec.folder, name, values, generate.PARTITIONS)
        return _of_topics(spec, [name], project.spec.folder)
    text = f'prove cannot generate data for source "{spec.name}" of kind "{spec.connector}"'
    raise DefinitionError(problem("prove.no_data", text, project.spec.place("sources", spec.name)))
