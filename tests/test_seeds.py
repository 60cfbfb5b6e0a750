"""Seeds are hashes: stable, 53 bits, different for every role."""

from __future__ import annotations

import hashlib

import numpy as np

from clearfuse.synth.seeds import generator, seed_of, unit_hash


def test_a_seed_is_the_top_53_bits_of_blake2b_of_the_json() -> None:
    text = b'[0,"msrs","00001D",0,"step",2]'
    expected = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 11
    assert seed_of(0, "msrs", "00001D", 0, "step", 2) == expected
    assert expected < 2**53


def test_sums_do_not_collide() -> None:
    assert seed_of(0, 1) != seed_of(1, 0)
    assert seed_of("ab", "c") != seed_of("a", "bc")


def test_streams_are_the_same_everywhere() -> None:
    assert np.array_equal(generator(5).random(4), generator(5).random(4))
    assert not np.array_equal(generator(5).random(4), generator(6).random(4))


def test_unit_hash_is_uniform() -> None:
    values = [unit_hash("x", i) for i in range(4000)]
    assert min(values) >= 0 and max(values) < 1
    assert abs(float(np.mean(values)) - 0.5) < 0.02
