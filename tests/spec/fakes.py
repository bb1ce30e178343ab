"""Connectors that exist only as words and settings, so that definitions are tested without any system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dropless.connect.config import Secret, field


@dataclass(frozen=True)
class Along:
    column: str = field("The column that grows.")


@dataclass(frozen=True)
class ThingConfig:
    path: str = field("Where it is.")
    url: Secret | None = field("With a password.", default=None)
    rename: dict[str, str] = field("Names.", default_factory=dict)
    batch: int = field("Rows.", default=10, minimum=1)
    room: int = field("Bytes.", default=1 << 20, size=True)
    kind: str = field("Which.", default="plain", choices=("plain", "fancy"))
    level: Literal["low", "high"] = field("How high.", default="low")
    ratio: float = field("A share.", default=0.5)
    on: bool = field("Whether.", default=False)
    columns: tuple[str, ...] = field("Columns.", default=())
    tokens: tuple[Secret, ...] = field("More passwords.", default=())
    log: Along | None = field("As a log.", default=None)

    def __post_init__(self) -> None:
        if self.path == "nowhere":
            raise ValueError("path leads nowhere")


class Thing:
    config_type = ThingConfig
    modes = frozenset({"append", "overwrite"})


class Table:
    config_type = ThingConfig
    modes = frozenset({"append", "upsert", "overwrite"})
