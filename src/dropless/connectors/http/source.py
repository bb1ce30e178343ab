"""Ask an HTTP API for records. It may answer otherwise the next time, so what it gave is kept in a log first (L1)."""

from __future__ import annotations

from dropless.connect.api import Chunk, Field, Offset, SourceContext, Split, SplitReader
from dropless.connectors.files.ndjson_parse import Rename
from dropless.connectors.files.sample import Columns
from dropless.connectors.http.client import Client
from dropless.connectors.http.config import HttpConfig, refuse_bad_settings
from dropless.connectors.http.feeder import Feeder
from dropless.connectors.http.pages import State, Unexpected, records_of, request
from dropless.connectors.intake.reader import LogReader
from dropless.connectors.intake.source import LogSource
from dropless.errors import ConnectorError, problem


class HttpSource(LogSource[HttpConfig]):
    """Records of an HTTP API that is asked page by page, each kept in a durable log. Delivery: replayable."""

    name = "http"
    config_type = HttpConfig

    def __init__(self, config: HttpConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        refuse_bad_settings(config, context.name)
        self._feeder: Feeder | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Made when it is needed."""
        if self._client is None:
            self._client = Client(self.config, self.who)
        return self._client

    def _found(self) -> tuple[Field, ...]:
        durable = self.shelf.durable()
        return super()._found() if durable is not None and durable.seq else self._sampled()

    def _sampled(self) -> tuple[Field, ...]:
        """The columns of the first page, which is asked for again once a run takes it."""
        columns, rename = Columns(mixed="JSON"), Rename(self.config.rename, ())
        try:
            records, _ = records_of(self.config, self.client.get(*request(self.config, State())))
        except Unexpected as e:
            said = f"{self.who}: the first page of {self.config.url} is not as the settings say: {e}"
            raise ConnectorError(problem("source.http_refused", said)) from None
        for record in records:
            if isinstance(record.value, dict):
                for key, part in rename.apply(record.value).items():
                    columns.value(key, part)
        if not columns.fields():
            said = f"the columns of {self.who} are not known: the API gives no records to find them out from"
            raise ConnectorError(problem("source.no_columns", said, hint="give it a contract"))
        return columns.fields()

    def splits(self) -> list[Split]:
        if self.in_run and self._feeder is None:
            self._feeder = Feeder(self.config, self.who, self.folder, self.client)
        return super().splits()

    def open(self, split: Split, start: Offset | None) -> SplitReader:
        reader = self.log_reader(split, start)
        if self._feeder is None:
            return reader
        reader.follow()
        if self.live:
            self._feeder.go_on()
        else:
            self._feeder.begin_poll()
        return Gathering(reader, self._feeder, live=self.live)

    def close(self) -> None:
        if self._feeder is not None:
            self._feeder.close()
        if self._client is not None:
            self._client.close()
        self._feeder = self._client = None


class Gathering(SplitReader):
    """Reads the log, and where it ends for now: asks for one page more, or waits for those who ask beside it."""

    def __init__(self, reader: LogReader, feeder: Feeder, *, live: bool) -> None:
        self._reader, self._feeder, self._live = reader, feeder, live
        self._ended = False

    def read(self) -> Chunk | None:
        while True:
            chunk = self._reader.read()
            assert chunk is not None
            if chunk.start != chunk.next:
                return chunk
            if self._live:
                self._feeder.raise_if_failed()
                return chunk
            if self._ended:
                return None
            self._ended = not self._feeder.page()

    def take_digest(self) -> str:
        return self._reader.take_digest()

    def close(self) -> None:
        self._reader.close()
