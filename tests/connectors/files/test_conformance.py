"""File sources by the conformance every source must pass."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from dropless.connect.api import Field, Source, SourceContext
from dropless.connect.conformance import SourceConformance
from dropless.connectors.files.csv import CsvConfig, CsvSource
from dropless.connectors.files.ndjson import NdjsonConfig, NdjsonSource


class TestCsv(SourceConformance):
    records = 202  # The short line after the stray quote goes with it.
    fields = (Field("id", "BIGINT", required=True), Field("name", "VARCHAR"), Field("day", "DATE"))

    def fill(self, folder: Path) -> None:
        lines = [f'{n},"name ""{n}""\r\nof two lines",2024-01-{n % 33 + 1:02d}' for n in range(100)]
        lines[10:10] = ['x,"stray,2024-01-01', "1,2"]
        (folder / "a.csv").write_bytes(b"\xef\xbb\xbfid,name,day\n" + "\n".join(lines).encode())
        lines = [f"2024-02-01,{n},é" for n in range(100)]
        lines[50] += "\udcff"
        text = "\r\n".join(["day,id,more", *lines, "1"])
        (folder / "b.csv.gz").write_bytes(gzip.compress(text.encode(errors="surrogateescape")))
        (folder / "c.csv").write_bytes(b"")

    def make(self, context: SourceContext) -> Source[Any]:
        return CsvSource(CsvConfig(path=f"{context.folder}/*"), context)


class TestUtf16Csv(TestCsv):
    records = 101

    def fill(self, folder: Path) -> None:
        lines = [f'{n},"name ""{n}""\r\nof two lines",2024-01-{n % 33 + 1:02d}' for n in range(100)]
        (folder / "a.csv").write_bytes("\n".join(["id,name,day", *lines, '1,"']).encode("utf-16"))

    def make(self, context: SourceContext) -> Source[Any]:
        return CsvSource(CsvConfig(path=f"{context.folder}/*", encoding="utf-16"), context)


class TestNdjson(SourceConformance):
    records = 204
    fields = (Field("id", "BIGINT", required=True), Field("name", "VARCHAR"), Field("nest", "STRUCT(a BIGINT[])"))

    def fill(self, folder: Path) -> None:
        lines = [f'{{"id": {n}, "name": "n\\u00e9 {n}", "nest": {{"a": [{n}, null]}}}}' for n in range(100)]
        lines[10:10] = ["{", "[]", '{"id": 1.5}', '{"id": 1, "id": 1}']
        (folder / "a.ndjson").write_bytes("\r\n".join(lines).encode())
        lines = [f'{{"name":"é","id":{n}}}' for n in range(100)]
        (folder / "b.ndjson").write_bytes("\n\n".join(lines).encode())

    def make(self, context: SourceContext) -> Source[Any]:
        return NdjsonSource(NdjsonConfig(path=f"{context.folder}/*"), context)
