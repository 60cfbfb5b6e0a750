"""Seeds are hashes of what they are for, never sums; generators are always arguments."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # json.dumps makes one each time


def seed_of(*parts: Any) -> int:
    """The top 53 bits of blake2b over the JSON list of ``parts``: fits a float64 and every JSON reader."""
    return int.from_bytes(hashlib.blake2b(_encode(parts).encode(), digest_size=8).digest(), "big") >> 11


def unit_hash(*parts: Any) -> float:
    """``seed_of`` as a number in [0, 1): for shuffles and splits."""
    return seed_of(*parts) / 2.0**53


def generator(seed: int) -> np.random.Generator:
    """A counter-based generator for one seed: the same stream on every machine."""
    return np.random.Generator(np.random.Philox(seed))


def content_key(*parts: Any) -> str:
    """blake2b over the JSON list of ``parts``, 32 hex digits: the name of what is made of them."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
