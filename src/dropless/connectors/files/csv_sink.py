"""CSV files after RFC 4180."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dropless.connect.api import SinkContext
from dropless.connect.config import field
from dropless.connectors.files.file_parts import PartWriter
from dropless.connectors.files.file_sink import FileSink, FileSinkConfig
from dropless.connectors.files.file_types import quote_name, quote_text
from dropless.connectors.files.text_part import TextPart, join_text, json_value, scalar_value, text_connection
from dropless.errors import DefinitionError, problem

USUAL = ",;|\t"


@dataclass(frozen=True)
class CsvSinkConfig(FileSinkConfig):
    """Settings of the CSV sink."""

    delimiter: str = field("One character between fields.", default=",")
    header: bool = field("Whether the first line names the columns.", default=True)


class CsvSink(FileSink[CsvSinkConfig]):
    """One CSV file per epoch, lane and partition (append), or per partition (overwrite).

    NULL is an empty field and an empty text is `""`; of one column alone, NULL is an empty line, which many readers
    skip. Lines end in LF. Times are ISO 8601, bytes base64, nested values JSON.

    Delivery: transactional.
    """

    name = "csv"
    config_type = CsvSinkConfig
    ending = "csv"

    def __init__(self, config: CsvSinkConfig, context: SinkContext) -> None:
        super().__init__(config, context)
        if len(config.delimiter) != 1 or config.delimiter in '"\r\n':
            text = f'sink "{context.name}": {config.delimiter!r} cannot be the delimiter of a CSV file'
            raise DefinitionError(problem("sink.delimiter", text, hint="one character, neither a quote nor a line end"))
        fields = [f for f in self.schema if f.name not in self.partition_by]
        cells = (_cell(quote_name(f.name), f.type, config.delimiter) for f in fields)
        self._line = f" || {quote_text(config.delimiter)} || ".join(cells) + " || chr(10)"
        names = config.delimiter.join(_quoted(f.name, config.delimiter) for f in fields)
        self._header = f"{names}\n".encode() if config.header else b""

    def open_part(self, path: Path, first: pa.Table) -> PartWriter:
        return TextPart(path, text_connection(), self._line, self._header)

    def join_parts(self, parts: Sequence[Path], into: Path) -> None:
        join_text(parts, into, self._header)


def _cell(sql: str, kind: Any, delimiter: str) -> str:
    """SQL of a field's text, quoted where it must be."""
    if pa.types.is_nested(kind):
        text = f"CASE WHEN {sql} IS NULL THEN NULL ELSE to_json({json_value(sql, kind)})::VARCHAR END"
        return f"coalesce({_in_quotes(text)}, '')"
    if pa.types.is_string(kind):
        special = [
            f"{sql} = ''",
            *(f"contains({sql}, {c})" for c in (quote_text(delimiter), "'\"'", "chr(10)", "chr(13)")),
        ]
        return f"coalesce(CASE WHEN {' OR '.join(special)} THEN {_in_quotes(sql)} ELSE {sql} END, '')"
    text = f"CAST({scalar_value(sql, kind)} AS VARCHAR)"
    # Numbers, times and base64 hold none of the usual delimiters; with another one, such as a dash, they are quoted.
    return f"coalesce({text if delimiter in USUAL else _in_quotes(text)}, '')"


def _in_quotes(text: str) -> str:
    return f"""'"' || replace({text}, '"', '""') || '"'"""


def _quoted(text: str, delimiter: str) -> str:
    if text and not any(c in text for c in (delimiter, '"', "\r", "\n")):
        return text
    return '"' + text.replace('"', '""') + '"'
