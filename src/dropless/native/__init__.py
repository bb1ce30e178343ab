"""The compiled kernel, where the installation has one: the innermost loops of the decoders, in C without Python.

`library` is None where no compiler was found at install, or with `DROPLESS_NATIVE=off`. Everything then works the same,
to the byte, only slower: callers keep a way without it. Calls release the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
"""Of the functions and structures; one that was built for another version is not used."""
SKIPPED, STRING, INT, FLOAT, DECIMAL, BOOL, DATE, STAMP, SPELLED, PARSED = range(10)
"""Kinds of columns: `SPELLED` stays a text, `PARSED` only a parser can judge."""
ABSENT, NONE, VALUE, TEXT, WRONG = range(5)
"""What is known of a cell: not there, NULL, made, a text to be looked at or taken, of the wrong kind."""


class Column(Structure):
    """A column to be filled; `values.h` says what each part is."""

    _fields_ = (
        ("kind", c_int32),
        ("width", c_int32),
        ("scale", c_int32),
        ("whole", c_int32),
        ("low", c_int64),
        ("high", c_int64),
        ("state", c_void_p),
        ("values", c_void_p),
        ("begin", c_void_p),
        ("size", c_void_p),
    )


class Key(Structure):
    """A key of an object, and the column it goes to."""

    _fields_ = (("name", c_char_p), ("size", c_int64), ("column", c_int64))


class Progress(Structure):
    """How far the lines are read, and the key that is not known."""

    _fields_ = (("line", c_int64), ("row", c_int64), ("name", c_int64), ("size", c_int64))


_A = c_void_p
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ndjson": (
        c_int32,
        [c_char_p, _A, _A, _A, c_int64, _A, c_int64, _A, c_int64, c_int32, POINTER(Progress), _A],
    ),
    "bitmap": (c_int64, [_A, c_int64, ctypes.c_uint8, _A]),
    "pack": (None, [_A, c_int64, _A]),
    "text_size": (c_int64, [_A, _A, c_int64]),
    "texts": (None, [c_char_p, c_int64, _A, _A, _A, c_int64, _A, _A]),
    "spans": (None, [c_char_p, _A, _A, _A, c_int64, _A, _A]),
}


class Library:
    """The functions of the kernel, by their names without the prefix."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or AttributeError where the file is none that can be used here."""
        loaded = ctypes.CDLL(str(path))
        if loaded.dropless_version() != VERSION:
            raise OSError(f"{path} is of another version")
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, f"dropless_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _load() -> Library | None:
    given = os.environ.get("DROPLESS_NATIVE")  # Or the path of another build, such as one that watches its memory.
    if given == "off":
        return None
    try:
        return Library(Path(given) if given else Path(__file__).with_name("kernel.so"))
    except (OSError, AttributeError):
        return None


library = _load()


def address(array: np.ndarray | None) -> int | None:
    """Where an array's bytes are, for the kernel; the caller keeps the array."""
    return None if array is None else array.ctypes.data
