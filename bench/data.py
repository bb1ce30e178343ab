"""The input of the file benchmarks: events of eight fields, a known share of them bad, and what must arrive.

Every value is a function of the row's number, so one size and share gives one input. Bad rows are bad in thirteen ways,
some of which a script that relies on implicit casts lets through.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

ROWS_PER_FILE = 1_000_000
LEAST_FILES = 4

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: bench.events
version: 1.0.0
status: active
schema:
  - name: events
    logicalType: object
    properties:
      - {name: event_id, logicalType: string, required: true}
      - {name: user_id, logicalType: integer, required: true}
      - {name: ts, logicalType: timestamp, required: true}
      - {name: page, logicalType: string}
      - {name: country, logicalType: string, required: true, logicalTypeOptions: {pattern: "^[A-Z]{2}$"}}
      - {name: quantity, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1, maximum: 100}}
      - {name: amount, logicalType: number, physicalType: "DECIMAL(12, 2)", required: true,
         logicalTypeOptions: {minimum: 0}}
      - {name: mobile, logicalType: boolean}
    quality:
      - name: page_is_a_path
        type: custom
        engine: dropless
        implementation: {row: "page LIKE '/%'", on_fail: quarantine}
      - name: amount_is_plausible
        type: custom
        engine: dropless
        implementation: {row: "amount <= quantity * 1000", on_fail: quarantine}
"""

# bad: 0 is a good row. The comment says what a governed run refuses it for.
_FIELDS = """
    SELECT bad, i,
           'e' || lpad(i::VARCHAR, 11, '0') AS event_id,
           h % 1000000 AS user_id,
           TIMESTAMP '2026-01-01' + to_seconds((i * 7) % 31536000) AS ts,
           '/shop/item/' || (h // 7 % 5000) AS page,
           ['DE', 'FR', 'GB', 'US', 'JP', 'BR', 'IN', 'ZA'][1 + h // 11 % 8] AS country,
           1 + h // 13 % 20 AS quantity,
           (h // 17 % 100000 / 100)::DECIMAL(12, 2) AS amount,
           h // 19 % 2 = 0 AS mobile
    FROM (SELECT i, (hash(i) >> 8)::BIGINT AS h,
                 CASE WHEN hash(i + 1000000007) % 1000 < {permille}
                      THEN 1 + (hash(i + 2000000011) % 13)::INTEGER ELSE 0 END AS bad
          FROM range({begin}, {end}) t(i))
"""

_VALUES = """
    CASE bad WHEN 4 THEN {null} ELSE user_id::VARCHAR END AS user_id,
    CASE bad WHEN 8 THEN 'yesterday' ELSE strftime(ts, '%Y-%m-%dT%H:%M:%S') END AS ts,
    CASE bad WHEN 12 THEN 'item' ELSE page END AS page,
    CASE bad WHEN 11 THEN 'Germany' ELSE country END AS country,
    CASE bad WHEN 6 THEN '4.7' WHEN 7 THEN 'true' WHEN 9 THEN '0' ELSE quantity::VARCHAR END AS quantity,
    CASE bad WHEN 5 THEN {text} WHEN 10 THEN '-' || (amount + 1) WHEN 13 THEN '999999.00' ELSE amount::VARCHAR END
        AS amount,
    mobile::VARCHAR AS mobile
"""

_JSON_LINE = """
    CASE bad WHEN 2 THEN '[1, 2]' ELSE left(line, CASE bad WHEN 1 THEN length(line) // 2 ELSE length(line) END) END
    FROM (SELECT bad, '{' || CASE bad WHEN 3 THEN '' ELSE '"event_id":"' || event_id || '",' END
        || '"user_id":' || user_id || ',"ts":"' || ts || '","page":"' || page || '","country":"' || country
        || '","quantity":' || quantity || ',"amount":' || amount || ',"mobile":' || mobile || '}' AS line
"""

_CSV_LINE = """
    CASE bad WHEN 1 THEN line || ',surplus' WHEN 2 THEN left(line, 30) ELSE line END AS "{columns}"
    FROM (SELECT bad, CASE bad WHEN 3 THEN '' ELSE event_id END || ',' || user_id || ',' || ts || ','
        || CASE WHEN i % 100 = 1 THEN '"' || page || E'?q=\\n""x"", y&from=newsletter"'
                ELSE page || '?from=newsletter-of-spring&campaign=7' END
        || ',' || country || ',' || quantity || ',' || amount || ',' || mobile AS line
"""

COLUMNS = "event_id,user_id,ts,page,country,quantity,amount,mobile"


@dataclass(frozen=True)
class Input:
    """A folder of files, and what of it a governed run must deliver."""

    folder: Path
    format: str
    rows: int
    bytes: int
    good: int
    users: int
    """The sum of `user_id` over the good rows."""
    amount: str
    """The sum of `amount` over the good rows."""

    @property
    def glob(self) -> str:
        return str(self.folder / f"*.{self.format}")


def make(folder: Path, format: str, rows: int, bad_share: float) -> Input:
    """The input in `folder`, made now or, where the same was made before, as it is."""
    kept = folder / "input.json"
    if kept.exists():
        return Input(**{**json.loads(kept.read_text()), "folder": folder})
    folder.mkdir(parents=True, exist_ok=True)
    files = max(LEAST_FILES, -(-rows // ROWS_PER_FILE))
    con = duckdb.connect()
    good = users = 0
    amount: object = 0
    for number in range(files):
        begin, end = rows * number // files, rows * (number + 1) // files
        fields = _FIELDS.format(permille=round(bad_share * 1000), begin=begin, end=end)
        con.execute(f"CREATE OR REPLACE TABLE fields AS {fields}")
        text = _lines(format)
        header = f"HEADER {'true' if format == 'csv' else 'false'}"
        name = folder / f"events-{number:04}.{format}"
        con.execute(f"COPY ({text}) TO '{name}' (FORMAT csv, {header}, QUOTE '', ESCAPE '', DELIMITER '\x01')")
        row = con.sql("SELECT count(*), sum(user_id), sum(amount) FROM fields WHERE bad = 0").fetchall()[0]
        good, users, amount = good + row[0], users + int(row[1]), amount + row[2]
    con.close()
    size = sum(f.stat().st_size for f in folder.glob(f"*.{format}"))
    made = Input(folder, format, rows, size, good, users, str(amount))
    kept.write_text(json.dumps({**asdict(made), "folder": ""}))
    return made


def _lines(format: str) -> str:
    """A query of one column, whose values are the lines of a file."""
    if format == "ndjson":
        values = _VALUES.format(null="'null'", text="'\"n/a\"'")
        return f"SELECT {_JSON_LINE} FROM (SELECT bad, i, event_id, {values} FROM fields ORDER BY i))"
    values = _VALUES.format(null="''", text="'n/a'")
    line = _CSV_LINE.format(columns=COLUMNS)
    return f"SELECT {line} FROM (SELECT bad, i, event_id, {values} FROM fields ORDER BY i))"
