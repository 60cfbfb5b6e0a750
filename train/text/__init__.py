"""Prompt encoders: prompts to the embeddings that a model joins to its image tokens.

``bytes`` is trained with the model, ``none`` encodes no prompt; ``t5-small`` to ``t5-xxl`` are Flan-T5's encoders,
frozen, as is any other T5 given by hub id or folder; ``omnigen`` is the vocabulary of a base that embeds
tokens itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from clearfuse.synth.types import OTHER, look_up
from clearfuse.train.text import byte_level, omnigen, t5
from clearfuse.train.text.base import TextEncoder
from clearfuse.train.text.byte_level import BytesEncoder, hashed_grams, to_bytes
from clearfuse.train.text.nothing import NoText
from clearfuse.train.text.omnigen import OmniGenTokens
from clearfuse.train.weights.source import Needed, Source, digest_of, find_source, named, read_vocabulary

PLAIN = {
    "vif": "fuse the visible and infrared images",
    "mef": "fuse the under-exposed and over-exposed images",
    "mff": "fuse the near-focus and far-focus images",
    OTHER: "fuse the two images",
}


def plain_request(task: str) -> str:
    """The default prompt of a task, which also replaces a share of the training prompts. Raises UserError."""
    return look_up("task", task, PLAIN)


OWN = ("bytes", "none")
OMNIGEN = {"omnigen": omnigen.PUBLISHED}
NAMES = (*OWN, *OMNIGEN, *t5.PUBLISHED)


@dataclass(frozen=True)
class LoadedText:
    """A loaded prompt encoder. reference: how to find it again; files: its files; digest: their hash, if local."""

    encoder: TextEncoder
    reference: str
    files: tuple[Path, ...] = ()
    digest: str | None = None


def find_text(reference: str, rng: torch.Generator, store: Path | None = None) -> LoadedText:
    """Load the prompt encoder of a reference: one of ``NAMES``, or see ``clearfuse.train.weights.source``.

    rng: draws the parameters of a trainable encoder; store: a folder that caches the embeddings of a frozen one. Raises
    UserError, one line, if there is no such encoder, or its files are missing or do not fit.
    """
    if reference == "bytes":
        return LoadedText(byte_level.build(rng), reference)
    if reference == "none":
        return LoadedText(NoText(), reference)
    if named(reference, OMNIGEN):
        source = _source(reference, OMNIGEN["omnigen"].files)
        files = tuple(source.paths(OMNIGEN["omnigen"].files))
        encoder = OmniGenTokens(read_vocabulary(source.folder, f"--text {reference}"))
        return LoadedText(encoder, source.reference, files, digest_of(files) if source.local else None)
    source = _source(reference, t5.FILES, t5.encoder_names)
    files = tuple(source.paths((*t5.FILES, t5.SHARDS)))
    digest = digest_of(files) if source.local else None
    identity = digest or source.reference
    return LoadedText(
        t5.load_t5(source.folder, f"--text {reference}", identity, store), source.reference, files, digest
    )


def width_of(reference: str) -> int:
    """The width of a reference's embeddings, 0 for ``none``: from the table for a name, else from its config.json.

    Raises UserError, one line, if there is no such encoder.
    """
    if reference in OWN:
        with torch.device("meta"):
            return (BytesEncoder() if reference == "bytes" else NoText()).width
    if named(reference, OMNIGEN):
        return OmniGenTokens.width
    name, folder = named(reference, t5.WIDTHS), reference.partition("=")[2]
    if name is not None and not (folder and (Path(folder) / "config.json").is_file()):
        return t5.WIDTHS[name]
    source = _source(reference, ("config.json",))
    return t5.width_of(source.folder, f"--text {reference}")


def blank_text(reference: str) -> TextEncoder:
    """The prompt encoder of a reference without weights, to count what it costs. Raises UserError as ``width_of``."""
    if reference in OWN:
        return BytesEncoder() if reference == "bytes" else NoText()
    if named(reference, OMNIGEN):
        return OmniGenTokens(omnigen.OneToken())
    name, folder = named(reference, t5.SIZES), reference.partition("=")[2]
    if name is not None and not (folder and (Path(folder) / "config.json").is_file()):
        return t5.blank_t5(t5.COMMON | t5.SIZES[name], reference)
    source = _source(reference, ("config.json",))
    return t5.blank_t5(t5.config_of(source.folder, f"--text {reference}"), reference)


def _source(reference: str, files: tuple[str, ...], needed: Needed | None = None) -> Source:
    table = OMNIGEN | t5.PUBLISHED
    return find_source("text", reference, table, files=files, extra=OWN, what="text encoder", needed=needed)


def build_text(reference: str, rng: torch.Generator) -> TextEncoder:
    """The prompt encoder of a reference; see ``find_text``."""
    return find_text(reference, rng).encoder


__all__ = [
    "NAMES", "BytesEncoder", "LoadedText", "NoText", "OmniGenTokens", "TextEncoder", "blank_text", "build_text",
    "find_text", "hashed_grams", "plain_request", "to_bytes", "width_of",
]  # fmt: skip
