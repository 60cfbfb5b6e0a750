"""What a run reads of its shards, from its settings and its model's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.buckets import MULTIPLE
from train.cached import check_fits
from train.corpus import Corpus
from train.data import Samples
from train.degrading import Degraders
from train.design import Assembly
from train.runs import Settings


def samples_of(
    settings: Settings,
    assembly: Assembly,
    corpus: Corpus,
    degraders: Degraders,
    *,
    training: bool,
    cache: int = 0,
) -> Samples:
    """The samples that a run trains on, or validates on. cache: bytes of decoded ones to keep.

    Raises UserError where the run's weights of sources, or its settings, don't go with what the shards are.
    """
    if corpus.cached is not None:
        check_fits(corpus.cached, made_of(settings, assembly), str(corpus.shards[0].parent))
    return Samples(
        corpus,
        side=settings.crop,
        ratios=settings.ratios,
        batch=settings.batch,
        mix=settings.mix,
        multiple=max(MULTIPLE, 2 * assembly.tokenizer.f),
        seed=settings.seed,
        plain=settings.plain,
        rephrase=settings.rephrase,
        drop=assembly.objective.drop,
        clean=assembly.objective.pixel > 0,
        prior=assembly.design.prior,
        training=training,
        cache=cache,
        degrade=degraders,
    )


def made_of(settings: Settings, assembly: Assembly) -> dict[str, Any]:
    """All that decides what latents and embeddings are, beside the shards: what a cache of them is made with."""
    tokenizer, text = assembly.found["tokenizer"], assembly.found["text"]
    return {
        "tokenizer": _found(tokenizer),
        "text": None if assembly.text.trainable else _found(text),
        "prior": assembly.design.prior,
        "clean": assembly.objective.pixel > 0,
        **{name: getattr(settings, name) for name in ("crop", "ratios", "seed", "plain", "rephrase")},
    }


def _found(part: Any) -> Mapping[str, Any]:
    return {"reference": part.reference, "digest": part.digest}
