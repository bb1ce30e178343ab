"""The folder of a log as any process may look at it: its files, how far it is durable, who has read how far."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dropless.connectors.intake.segment import END, HEADER, MAGIC, STATE, file_name, frames
from dropless.errors import ConnectorError, problem

_MARK = struct.Struct("<QQQ")
_NAME = re.compile(r"\d{20}\.log")
READERS = "readers"


@dataclass(frozen=True, order=True)
class Spot:
    """A place in the log: the number of the next record, and where in which file it stands or will stand."""

    seq: int
    file: int
    byte: int


@contextmanager
def mapped(what: Path) -> Iterator[None]:
    """Turns errors of the operating system about the log into ConnectorErrors."""
    try:
        yield
    except PermissionError as e:
        raise ConnectorError(problem("source.permission", f"{what}: permission denied")) from e
    except OSError as e:
        said = f"{what} cannot be used now: {e.strerror or e}"
        raise ConnectorError(problem("source.unreachable", said), retryable=True) from e


class Shelf:
    """Reads only what its writer has declared durable: the rest may vanish with a power cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[int]:
        """The numbers of the first records of all files, ascending."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(n[:20]) for n in names if _NAME.fullmatch(n))

    def path(self, file: int) -> Path:
        """The file whose first record has this number."""
        return self.folder / file_name(file)

    def identity(self) -> str | None:
        """The name the log was made with; None where there is no log."""
        for file in self.files():
            with suppress(FileNotFoundError), self.path(file).open("rb") as f:
                data = f.read(len(MAGIC) + HEADER.size + 256)
                found = next(frames(data, len(MAGIC)), None) if data.startswith(MAGIC) else None
                if found is not None and found[1].flags == STATE | END:
                    import orjson

                    return str(orjson.loads(found[1].around)["log"])
        return None

    def durable(self) -> Spot | None:
        """Where the log is durable up to; None where nobody has said so yet."""
        try:
            data = (self.folder / "durable").read_bytes()
        except FileNotFoundError:
            return None
        if len(data) != _MARK.size + 4 or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            return None
        return Spot(*_MARK.unpack(data[:-4]))

    def readers(self) -> dict[str, int]:
        """The number of the next record for each pipeline that reads the log, as far as its ledger has committed."""
        found = {}
        with suppress(FileNotFoundError):
            for path in (self.folder / READERS).iterdir():
                with suppress(ValueError, FileNotFoundError):
                    found[path.name] = int(path.read_text())
        return found

    def note_reader(self, reader: str, seq: int) -> None:
        """What lies before `seq` is committed by this reader. Not durable: too low a number only keeps files longer."""
        folder = self.folder / READERS
        folder.mkdir(exist_ok=True)
        path = folder / reader
        beside = folder / f".{reader}.{os.getpid()}"
        beside.write_text(str(seq))
        beside.replace(path)

    def size(self, file: int) -> int:
        """Bytes of one file; 0 where it is gone."""
        try:
            return self.path(file).stat().st_size
        except FileNotFoundError:
            return 0


def mark_bytes(spot: Spot) -> bytes:
    """What the file `durable` holds."""
    data = _MARK.pack(spot.seq, spot.file, spot.byte)
    return data + zlib.crc32(data).to_bytes(4, "little")
