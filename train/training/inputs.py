"""The samples of a run, from its shards, its settings and its model's parts."""

from __future__ import annotations

from typing import Any

from clearfuse.synth.types import UserError
from clearfuse.train.data.buckets import MULTIPLE
from clearfuse.train.data.corpus import Corpus
from clearfuse.train.data.degrade import Degraders
from clearfuse.train.data.latents import check_fits
from clearfuse.train.data.samples import Samples
from clearfuse.train.designs.design import Assembly, FoundParts
from clearfuse.train.runs.settings import Settings
from clearfuse.train.semantics import view_of


def samples_of(
    settings: Settings,
    assembly: Assembly,
    corpus: Corpus,
    degraders: Degraders,
    *,
    training: bool,
    cache: int = 0,
) -> Samples:
    """The training or validation samples of a run. cache: bytes for caching samples. Raises as ``check_data``."""
    check_data(settings, assembly, corpus)
    return Samples(
        corpus,
        side=settings.crop,
        ratios=settings.ratios,
        batch=settings.batch,
        mix=settings.mix,
        multiple=multiple_of(assembly.tokenizer.f, assembly.design.config.patch),
        repeats=settings.repeats,
        seed=settings.seed,
        plain=settings.plain,
        rephrase=settings.rephrase,
        drop=assembly.objective.drop + assembly.objective.drop_both,
        clean=assembly.objective.pixel > 0,
        guess=assembly.design.guess,
        view=view_of(assembly.semantics),
        training=training,
        cache=cache,
        degrade=degraders,
        undegraded=settings.undegraded,
        scale=settings.scale,
    )


def check_data(settings: Settings, assembly: Assembly, corpus: Corpus) -> None:
    """Raise UserError if a run's source weights, or its settings, do not fit its shards."""
    corpus.weights(settings.mix)
    if corpus.cached is not None:
        check_fits(corpus.cached, latent_settings(settings, assembly.found), str(corpus.shards[0].parent))
    elif assembly.semantics is not None and not assembly.semantics.trainable:
        reference = assembly.design.semantics
        raise UserError(
            f"{corpus.shards[0].parent}: holds no semantics of its pictures: train cache {corpus.shards[0].parent} "
            f"--preset {settings.preset} --semantics '{reference}' --out DIR makes them, and train fit DIR takes them"
        )


def multiple_of(f: int, patch: int) -> int:
    """The number of pixels that the sides of crops must be multiples of: a patch of at least 2 × 2 latent cells.

    f: pixels along a side of a cell; patch: see ``Family``.
    """
    return max(MULTIPLE, max(patch, 2) * f)


def latent_settings(settings: Settings, found: FoundParts) -> dict[str, Any]:
    """The settings that determine latents and embeddings of given shards, as a cache of latents records them."""
    design, tokenizer, text, semantics = settings.design(), found.tokenizer, found.text, found.semantics
    asks = semantics.encoder is not None and not semantics.encoder.trainable
    view = view_of(semantics.encoder)
    return {
        "tokenizer": {"reference": tokenizer.reference, "digest": tokenizer.digest},
        "text": None if text.encoder.trainable else {"reference": text.reference, "digest": text.digest},
        "prompts": None if text.encoder.trainable else "normalised",
        "guess": design.guess,
        "semantics": {"reference": semantics.reference, "digest": semantics.digest} if asks else None,
        "questions": list(design.questions) if asks else None,
        "views": None if view is None else f"{view.side} pixels and {view.patches} patches",
        "clean": design.objective.pixel > 0,
        **{name: getattr(settings, name) for name in ("crop", "ratios", "repeats", "seed", "plain", "rephrase")},
    }
