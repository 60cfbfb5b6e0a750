"""Flan-T5's encoder as a prompt encoder: frozen, its embeddings kept by prompt.

Source: Chung et al., arXiv 2210.11416; MMAIF section 3.3 uses it. Letters of the shapes: b prompts, m tokens of the
longest, e width.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clearfuse.synth.types import UserError
from clearfuse.train.text.base import TextEncoder
from clearfuse.train.weights.frozen import Frozen
from clearfuse.train.weights.source import Published
from clearfuse.train.weights.tensors import read_tensors, write_tensors

FILES = ("config.json", "tokenizer.json", "model*")
"""What makes an encoder; the last are the weights, in one file or in parts with their index."""

PUBLISHED: dict[str, Published] = {
    f"t5-{size}": Published(f"google/flan-t5-{size}", revision, files=FILES, licence="Apache-2.0")
    for size, revision in {
        "small": "0fc9ddf78a1e988dac52e2dac162b0ede4fd74ab",
        "base": "7bcac572ce56db69c1ea7c8af255c5d7c9672fc2",
        "large": "0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a",
        "xl": "7d6315df2c2fb742f0f5b556879d730926ca9001",
        "xxl": "ae7c9136adc7555eeccc78cdd960dfd60fb346ce",
    }.items()
}

WIDTHS = {"t5-small": 512, "t5-base": 768, "t5-large": 1024, "t5-xl": 2048, "t5-xxl": 4096}
"""Of the published ones' embeddings."""

LIMIT = 128
"""Tokens of a prompt; what lies beyond is cut."""

KEPT = 8192
"""Prompts whose embeddings stay in memory: of XL's, about 0.2 MB each, 1.5 GB."""


class T5Encoder(Frozen, TextEncoder):
    """Embeddings of prompts, each as if it were alone, whatever stands beside it.

    The weights are bf16 everywhere; a CPU computes with them in float32, to which they are widened when first needed:
    not at all where every prompt is kept. On a CPU every prompt goes through by itself, so that a number depends on no
    other prompt, bit for bit; on CUDA all that are not kept at once, padding masked. What was embedded is kept, on the
    CPU, the latest ``KEPT``.
    """

    trainable = False
    limit = LIMIT

    def __init__(self, network: nn.Module, words: Any, identity: str, store: Path | None = None) -> None:
        super().__init__(network)
        self.width = int(network.config.d_model)  # type: ignore[union-attr]
        self._words = words
        self._identity = identity
        self._store = store
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings, float32, padded with 0 to the longest prompt; the mask is False where a token is padding."""
        rows = self._rows(list(dict.fromkeys(prompts)))
        chosen = [rows[prompt].to(self.here.device, torch.float32) for prompt in prompts]
        text = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        lengths = torch.tensor([len(row) for row in chosen], device=text.device)
        return text, torch.arange(text.shape[1], device=text.device)[None] < lengths[:, None]

    def _rows(self, prompts: list[str]) -> dict[str, Tensor]:
        """Each prompt's embedding, (tokens, width), from memory, the store, or the network."""
        rows = {prompt: self._kept[prompt] for prompt in prompts if prompt in self._kept}
        for prompt in prompts:
            if prompt not in rows and (found := self._stored(prompt)) is not None:
                rows[prompt] = found
        missing = [prompt for prompt in prompts if prompt not in rows]
        size = len(missing) if self.here.is_cuda else 1
        for start in range(0, len(missing), max(size, 1)):
            part = missing[start : start + size]
            for prompt, row in zip(part, self._embedded(part), strict=True):
                rows[prompt] = row
                if self._store is not None:
                    write_tensors(self._path(prompt), {"embedding": row}, {"prompt": prompt})
        for prompt in prompts:
            self._kept[prompt] = rows[prompt]
            self._kept.move_to_end(prompt)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return rows

    @torch.no_grad()
    def _embedded(self, prompts: list[str]) -> list[Tensor]:
        codes = [torch.tensor(each.ids) for each in self._words.encode_batch(prompts)]
        lengths = [len(code) for code in codes]
        ids = nn.utils.rnn.pad_sequence(codes, batch_first=True).to(self.here.device)
        mask = torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
        with torch.autocast(ids.device.type, enabled=False):
            (network,) = self.networks
            if next(network.parameters()).dtype != self.dtype:
                network.to(self.dtype)
            found = network(input_ids=ids, attention_mask=mask.to(ids.device)).last_hidden_state
        return [row[:length].to("cpu", copy=True) for row, length in zip(found, lengths, strict=True)]

    def _path(self, prompt: str) -> Path:
        assert self._store is not None
        kind = "bf16" if self.here.is_cuda else "fp32"
        name = hashlib.blake2b(json.dumps([self._identity, LIMIT, "bf16", prompt]).encode(), digest_size=16).hexdigest()
        return self._store / kind / name[:2] / f"{name}.safetensors"

    def _stored(self, prompt: str) -> Tensor | None:
        """What the store has of a prompt; one of another prompt, or of another width, is as none."""
        if self._store is None or not (path := self._path(prompt)).is_file():
            return None
        tensors, said = read_tensors(path)
        row = tensors.get("embedding")
        fits = row is not None and row.ndim == 2 and row.shape[1] == self.width and said.get("prompt") == prompt
        return row if fits else None


def load_t5(folder: Path, where: str, identity: str, store: Path | None = None) -> T5Encoder:
    """The encoder of a folder with ``FILES``, its decoder's weights left out.

    where: begins the UserError that says what is missing or does not fit; identity: which network it is; store: a
    folder where embeddings stay, written by rename.
    """
    words = _tokenizer(folder, where)
    network = _weights(folder, where)
    ids = words.encode("a").ids
    if not ids or ids[-1] != network.config.eos_token_id or words.get_vocab_size() > network.config.vocab_size:
        raise UserError(f"{where}: tokenizer.json in {folder} is not of this network")
    return T5Encoder(network, words, identity, store)


def _tokenizer(folder: Path, where: str) -> Any:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{where}: tokenizer.json is missing in {folder}")
    try:
        words = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no class of its own
        raise UserError(f"{where}: {path}: {' '.join(str(error).split())[:200]}") from None
    words.no_padding()
    words.enable_truncation(LIMIT)
    return words


def width_of(folder: Path, where: str) -> int:
    """Width of the embeddings, as a folder's config.json says."""
    width = _config(folder, where).get("d_model", 512)  # the class's default
    if not isinstance(width, int) or width < 1:
        raise UserError(f"{where}: {folder / 'config.json'}: d_model must be a number above 0, not {width!r}")
    return width


def _config(folder: Path, where: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        raise UserError(f"{where}: config.json is missing in {folder}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {folder / 'config.json'}: {error}") from None
    if not isinstance(config, dict) or config.get("model_type") != "t5":
        kind = config.get("model_type") if isinstance(config, dict) else config
        raise UserError(f"{where}: {folder / 'config.json'} is of the type '{kind}'; allowed: t5")
    return config


def _weights(folder: Path, where: str) -> Any:
    from safetensors import SafetensorError
    from transformers.models.t5.modeling_t5 import T5EncoderModel
    from transformers.utils import logging

    _config(folder, where)
    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: Any = T5EncoderModel.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, dtype=torch.bfloat16,
                output_loading_info=True,
            )  # fmt: skip
            network, found = loaded
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{where}: can't be loaded from {folder}: {said}") from None
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    lost = sorted(found["missing_keys"]) or sorted(str(key) for key in found["mismatched_keys"])
    if lost:
        raise UserError(f"{where}: {len(lost)} weights are missing or of another shape in {folder}, such as {lost[0]}")
    return network
