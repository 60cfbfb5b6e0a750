"""Shards: samples in tar files, each with a receipt, and the codecs of their pictures."""

from __future__ import annotations

from clearfuse.synth.shards.sample import Sample, read_samples

__all__ = ["Sample", "read_samples"]
