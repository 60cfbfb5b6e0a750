"""JSON with one list that is too long to hold: written and read an item at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from clearfuse.synth.files.storage import Location, landing

FIRST = 1 << 16
"""Characters that are read at once; twice as many each time a value is longer than what was read."""


@dataclass(frozen=True)
class Stream:
    """A JSON list, whose items come when they are asked for; once, unless ``items`` can be iterated again."""

    items: Iterable[Any]


def pieces(data: Any, depth: int = 0) -> Iterator[str]:
    """``json.dumps(data, ensure_ascii=False, indent=1)``, a piece at a time.

    ``data`` may be a ``Stream``, an object with such values, and so may be the items of a ``Stream``.
    """
    within, after = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(data, Stream):
        lead = "["
        for item in data.items:
            yield lead + within
            yield from pieces(item, depth + 1)
            lead = ","
        yield "[]" if lead == "[" else f"{after}]"
    elif isinstance(data, dict) and any(isinstance(value, Stream) for value in data.values()):
        lead = "{"
        for name, value in data.items():
            yield f"{lead}{within}{json.dumps(name, ensure_ascii=False)}: "
            yield from pieces(value, depth + 1)
            lead = ","
        yield f"{after}}}"
    else:  # a text has no line breaks of its own
        yield json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).replace("\n", after)


def read_object(file: io.TextIOBase, name: str, each: Callable[[Any], None]) -> tuple[dict[str, Any], bool]:
    """A JSON object without its list ``name``, whose items go to ``each``; and whether there was such a list.

    Raises ValueError where it is no JSON object.
    """
    text = _Text(file)
    found: dict[str, Any] = {}
    listed = False
    text.take("{")
    while not text.ends("}", first=not found and not listed):
        key = text.value()
        if not isinstance(key, str):
            raise ValueError(f"a name must be a text, not {key!r}")
        text.take(":")
        if key == name and text.next() == "[":
            listed, first = True, True
            text.take("[")
            while not text.ends("]", first=first):
                first = False
                each(text.value())
        else:
            found[key] = text.value()
    if text.next():
        raise ValueError("something follows the object")
    return found, listed


_AFTER = frozenset(" \t\r\n:,]}")
"""What stands after a value."""


class _Text:
    """The text of a file from where it is read: what was taken is forgotten."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file, self._held, self._at, self._more = file, "", 0, True
        self._decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._held) or not self._fill():
                return self._held[self._at : self._at + 1]

    def take(self, wanted: str) -> None:
        """Take a character. Raises ValueError where another stands there."""
        if self.next() != wanted:
            raise ValueError(f"expected {wanted!r}, found {self.next()!r}")
        self._at += 1

    def ends(self, mark: str, *, first: bool) -> bool:
        """Whether the list or object ends here; takes its mark, or the comma before the next item."""
        if self.next() == mark:
            self._at += 1
            return True
        if not first:
            self.take(",")
        return False

    def value(self) -> Any:
        """Take a value, whole."""
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError:
                if not self._fill():
                    raise
                continue
            # A number may go on where this part of the file ends.
            if self._held[end : end + 1] in _AFTER or not self._fill():
                self._at = end
                return value

    def _fill(self) -> bool:
        """Read more; False at the end."""
        held = self._held[self._at :]
        read = self._file.read(max(FIRST, len(held))) if self._more else ""
        self._held, self._at, self._more = held + read, 0, bool(read)
        return self._more


def dumps(data: Any) -> bytes:
    """JSON as every file of a build holds it: one form for one value."""
    return json.dumps(data, ensure_ascii=False, separators=(", ", ": "), allow_nan=False).encode()


def write_json(path: Location, data: Any) -> None:
    """A JSON file a person can read, landed whole. data: see ``jsonstream.pieces``."""
    with landing(path) as file:
        for piece in pieces(data):
            file.write(piece.encode())
        file.write(b"\n")
