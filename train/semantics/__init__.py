"""Encoders of whole degraded pictures, which tell a model what it sees without a label of the degradation.

``learned`` is trained with the model; ``PUBLISHED`` are networks by name, frozen, and any other whose type is in
``networks.KINDS`` can be given by hub id or folder. What a frozen one says is kept by ``train cache``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clearfuse.synth.types import UserError
from clearfuse.train.semantics import learned, networks
from clearfuse.train.semantics.base import Absent, SemanticEncoder, View
from clearfuse.train.semantics.learned import LearnedSemantics
from clearfuse.train.weights.source import CONFIG, VOCABULARY, Published, Source, digest_of, find_source, named

PUBLISHED: dict[str, Published] = {
    "blip2": Published("Salesforce/blip2-opt-2.7b", None, files=(*networks.FILES, VOCABULARY), licence="MIT"),
    "smolvlm": Published(
        "HuggingFaceTB/SmolVLM-256M-Instruct", None, files=(*networks.FILES, VOCABULARY), licence="Apache-2.0"
    ),
    "clip": Published("openai/clip-vit-large-patch14", None, files=networks.FILES, licence="MIT"),
    "siglip": Published("google/siglip-base-patch16-224", None, files=networks.FILES, licence="Apache-2.0"),
    "dinov2": Published("facebook/dinov2-small", None, files=networks.FILES, licence="Apache-2.0"),
    "dinov3": Published("facebook/dinov3-vits16-pretrain-lvd1689m", None, files=networks.FILES, licence="DINOv3"),
}
"""No commit is pinned: the newest one is used, said and recorded."""

WIDTHS = {"blip2": 2560, "smolvlm": 576, "clip": 1024, "siglip": 768, "dinov2": 384, "dinov3": 384}
"""Widths of their tokens."""

OWN = ("none", "learned")
NAMES = (*OWN, *PUBLISHED)


@dataclass(frozen=True)
class LoadedSemantics:
    """A loaded encoder, None where there is none. reference: how to find it again; files: its files; digest: their
    hash, if local."""

    encoder: SemanticEncoder | None
    reference: str
    files: tuple[Path, ...] = ()
    digest: str | None = None


def find_semantics(reference: str, questions: Sequence[str], rng: torch.Generator) -> LoadedSemantics:
    """Load the encoder of a reference: one of ``NAMES``, or see ``clearfuse.train.weights.source``.

    questions: to a vision-language model; rng: draws the parameters of a trainable encoder. Raises UserError, one line,
    if there is no such encoder, its files are missing or do not fit, or it takes no question.
    """
    if reference in OWN:
        _ask_nothing(reference, questions)
        return LoadedSemantics(learned.build(rng) if reference == "learned" else None, reference)
    where = f"--semantics {reference}"
    source = _source(reference, networks.FILES)
    kind, _ = networks.kind_of(source.folder, where)
    files = (*networks.FILES, VOCABULARY) if kind.prompt else networks.FILES
    if kind.prompt and source.name is None and not source.local:  # a stranger's, of which the kind is only known now
        source = _source(reference, files)
    encoder = networks.load_network(source.folder, where, questions)
    found = tuple(source.paths(files))
    return LoadedSemantics(encoder, source.reference, found, digest_of(found) if source.local else None)


def width_of(reference: str) -> int:
    """The width of a reference's tokens, 0 for ``none``: from the table for a name, else from its config.json.

    Raises UserError, one line, if there is no such encoder.
    """
    if reference in OWN:
        return LearnedSemantics.width if reference == "learned" else 0
    name, folder = named(reference, WIDTHS), reference.partition("=")[2]
    if name is not None and not (folder and (Path(folder) / CONFIG).is_file()):
        return WIDTHS[name]
    return networks.width_of(networks.kind_of(_source(reference, (CONFIG,)).folder, f"--semantics {reference}")[1])


def blank_semantics(reference: str) -> SemanticEncoder | None:
    """The encoder of a reference without weights, to count what it costs: of a frozen one, which is not there when a
    model is trained, a stand-in. Raises UserError as ``width_of``.
    """
    if reference in OWN:
        return LearnedSemantics() if reference == "learned" else None
    return Absent(width_of(reference))


def view_of(encoder: SemanticEncoder | None) -> View | None:
    """What samples must show of whole pictures to an encoder that learns; what a frozen one says is in a cache."""
    return encoder.view if encoder is not None and encoder.trainable else None


def _source(reference: str, files: tuple[str, ...]) -> Source:
    return find_source("semantics", reference, PUBLISHED, files=files, extra=OWN)


def _ask_nothing(reference: str, questions: Sequence[str]) -> None:
    if questions:
        raise UserError(f"--question: '{reference}' is no language model, and is asked nothing")


__all__ = [
    "NAMES", "LearnedSemantics", "LoadedSemantics", "SemanticEncoder", "View", "blank_semantics", "find_semantics",
    "view_of", "width_of",
]  # fmt: skip
