"""Seeds and generators: a seed is the hash of what it is used for, never a sum."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # json.dumps would construct one each time


def seed_of(*parts: Any) -> int:
    """The top 53 bits of blake2b over the JSON list of ``parts``: fits a float64 and every JSON reader."""
    return int.from_bytes(hashlib.blake2b(_encode(parts).encode(), digest_size=8).digest(), "big") >> 11


def unit_hash(*parts: Any) -> float:
    """``seed_of`` as a number in [0, 1): for shuffles and splits."""
    return seed_of(*parts) / 2.0**53


def generator(seed: int) -> np.random.Generator:
    """A counter-based (Philox) generator: the same stream for a seed on every machine."""
    return np.random.Generator(np.random.Philox(seed))


def content_key(*parts: Any) -> str:
    """blake2b over the JSON list of ``parts``, 32 hex digits: a cache key for what is computed from them."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
