"""Mutations of valid inputs, all from a generator: of bytes, of values as JSON and TOML have them, and of text."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAGIC = (b"\0", b"\xff", b"\x7f", b"\x80", b"\n", b"-1", b"0", b"9" * 20, b"1e999", b"NaN", b"\xff\xff\xff\xff")
MAGIC += (b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xc3\x28", b"[", b"{", b'"', b"\0" * 512, b"[" * 3000, b"7777777\0")
"""Bytes that readers have stumbled over: ends of ranges, other types, broken UTF-8, openings without an end."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 256, 65536, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e-300, 1e300, 3.7, float("nan"), float("inf"), -float("inf")),
    *("", " ", "a", "a" * 5000, "\n", "a\nb\u2028c", "\x1b[31m", "../../x", "/dev/zero", "{key}", "%s", "\ud800", "1"),
    *("vif", "haze", "both", "nan", "4:3", "a.webp", "*", "{key}" * 30, "*" * 40, "{a|b|", "albumentations:Blur"),
    *([], [[]], [0], [1, 0], [-1, 1e9], ["a"] * 300, {}, {"": 0}, {"a": {"a": {}}}, {"schema": 1}),
)


def pick(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    """One of some items."""
    return items[int(rng.integers(len(items)))]


def mutate_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """Some bytes flipped, put in place of others, inserted, cut out, repeated or moved; or the end cut off."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(out) + 1))
        length = int(rng.integers(1, 2 ** int(rng.integers(1, 12))))
        match int(rng.integers(8)):
            case 0 if at < len(out):
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                piece = pick(rng, MAGIC)
                out[at : at + len(piece)] = piece
            case 2:
                out[at:at] = pick(rng, MAGIC)
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = out[at : at + length]
            case 5:
                to = int(rng.integers(len(out) + 1))
                out[to : to + length] = out[at : at + length]
            case 6:
                out[at : at + 8] = rng.bytes(8)
            case _:
                out = out[:at] if rng.random() < 0.3 else out
                out = bytearray(mutate_number(rng, bytes(out)))
    return bytes(out)


_NUMBER = re.compile(rb"-?\d+(\.\d+)?")


def mutate_number(rng: np.random.Generator, data: bytes) -> bytes:
    """One number in text is another."""
    found = list(_NUMBER.finditer(data[:20_000]))
    if not found:
        return data
    span = pick(rng, found).span()
    number = pick(rng, (b"-1", b"0", b"1", b"2", b"1e9", b"9999999", b"-0.5", b"1e400", b"4294967296", b"9" * 5000))
    return data[: span[0]] + number + data[span[1] :]


def deep(rng: np.random.Generator) -> Any:
    """A value nested to some depth; text nested without an end is in ``MAGIC``."""
    value: Any = 0
    for _ in range(int(rng.integers(2, 150))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def mutate_value(rng: np.random.Generator, data: Any) -> Any:
    """An object with values replaced, left out, renamed, repeated, or moved to where others stood."""
    out = copy.deepcopy(data)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(out))
        if not places:
            return pick(rng, VALUES)
        holder, key = pick(rng, places)
        match int(rng.integers(7)):
            case 0:
                del holder[key]
            case 1:
                holder[key] = copy.deepcopy(pick(rng, VALUES)) if rng.random() < 0.95 else deep(rng)
            case 2:
                other, there = pick(rng, places)
                holder[key] = copy.deepcopy(other[there])
            case 3 if isinstance(holder, dict):
                holder[str(pick(rng, ("", "a", key + "x", key[:-1], key.upper(), "a\nb", "é" * 300)))] = holder[key]
            case 4 if isinstance(holder[key], (int, float)) and abs(holder[key]) < 1e100:
                holder[key] = holder[key] * pick(rng, (-1, 0, 2, 1e3, 1e6, 1e12, 0.5)) + pick(rng, (0, 1, -1))
            case 5 if isinstance(holder[key], str):
                text = mutate_bytes(rng, holder[key].encode(errors="replace")).decode(errors="replace")
                holder[key] = text[:10_000]
            case _ if isinstance(holder, list):
                holder.insert(int(rng.integers(len(holder) + 1)), copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(pick(rng, VALUES))
    return out


def _places(data: Any) -> Any:
    """(list or dict, index or key) of every value in an object."""
    keys = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from _places(data[key])


def to_json(data: Any) -> bytes:
    """JSON, which may hold what no JSON may: NaN, lone surrogates."""
    return json.dumps(data, ensure_ascii=True).encode()


def to_toml(data: Mapping[str, Any]) -> bytes:
    """TOML: the tables on top as sections, all else in line. None, which it lacks, is left out."""
    plain = {key: value for key, value in data.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_inline(value)}" for key, value in plain.items() if value is not None]
    for name, table in data.items():
        if isinstance(table, Mapping):
            lines.append(f"[{_key(name)}]")
            lines += [f"{_key(key)} = {_inline(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines).encode()


def _key(key: Any) -> str:
    return json.dumps(str(key))


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_inline(one)}" for key, one in value.items() if one is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inline(one) for one in value if one is not None) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)
