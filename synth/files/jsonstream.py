"""JSON with one list that is too long to hold: written and read an item at a time."""

from __future__ import annotations

import functools
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ijson

from clearfuse.synth.files.storage import Location, landing

PIECES = 1000
"""Pieces of a long JSON that are written at once."""


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
            if _is_flat(item):
                yield f"{lead}{within}{_flat(item, depth + 1)}"
            else:
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


def _is_flat(item: Any) -> bool:
    """Whether it is an object of texts and numbers."""
    return isinstance(item, dict) and bool(item) and not any(isinstance(one, _NESTED) for one in item.values())


_NESTED = (dict, list, tuple, Stream)


def _flat(item: Any, depth: int) -> str:
    """An object of texts and numbers as an indent writes it; by the encoder in C, which knows no indent."""
    within = "\n" + " " * (depth + 1)
    return f"{{{within}{_encoder(within)(item)[1:-1]}{within[:-1]}}}"


@functools.cache
def _encoder(within: str) -> Callable[[Any], str]:
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=("," + within, ": ")).encode


def read_items(file: io.BufferedIOBase, name: str) -> Iterator[Any]:
    """The items of the list ``name`` of a JSON object, one at a time. Raises ValueError where it is no JSON."""
    with _one_line():
        yield from ijson.items(_events(file), f"{name}.item")


def read_but(file: io.BufferedIOBase, name: str) -> Any:
    """JSON, of whose object the list ``name`` is empty. Raises ValueError where it is no JSON."""
    built = ijson.ObjectBuilder()
    item, below = f"{name}.item", f"{name}.item."
    with _one_line():
        for place, event, value in _events(file):
            if place != item and not place.startswith(below):
                built.event(event, value)
    return built.value


DEEPEST = 100
"""Levels of JSON that are read: each event carries its whole place, whose length grows with them."""


def _events(file: io.BufferedIOBase) -> Iterator[tuple[str, str, Any]]:
    """ijson's events with their places. Raises ValueError where values are nested deeper than ``DEEPEST``."""

    def bounded() -> Iterator[tuple[str, Any]]:
        depth = 0
        for event, value in ijson.basic_parse(file, use_float=True):
            depth += event.startswith("start_") - event.startswith("end_")
            if depth > DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} levels")
            yield event, value

    return ijson.parse(bounded())


@contextmanager
def _one_line() -> Iterator[None]:
    """ijson's errors, which show the text around the fault, as ValueErrors of one line."""
    try:
        yield
    except ijson.JSONError as error:
        raise ValueError(str(error).strip().partition("\n")[0] or "no JSON") from None


def dumps(data: Any) -> bytes:
    """JSON as every file of a build holds it: one form for one value."""
    return json.dumps(data, ensure_ascii=False, separators=(", ", ": "), allow_nan=False).encode()


def write_json(path: Location, data: Any) -> None:
    """A JSON file a person can read, landed whole. data: see ``jsonstream.pieces``."""
    parts = pieces(data)
    with landing(path) as file:
        while some := "".join(itertools.islice(parts, PIECES)):
            file.write(some.encode())
        file.write(b"\n")
