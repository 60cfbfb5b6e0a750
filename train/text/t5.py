"""Flan-T5's encoder as a prompt encoder: frozen, with its embeddings cached by prompt.

Source: Chung et al., arXiv 2210.11416; used in MMAIF section 3.3. Shapes: b prompts, m tokens of the longest, e width.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from clearfuse.synth.files.checkpoints import check_weights
from clearfuse.synth.types import UserError, reason_of
from clearfuse.train.text.base import TextEncoder, normalise
from clearfuse.train.weights.frozen import Frozen
from clearfuse.train.weights.source import Published, read_config, read_vocabulary, shards_of
from clearfuse.train.weights.tensors import read_tensors, write_tensors

FILES = ("config.json", "tokenizer.json", "model.safetensors*")
"""The files of an encoder; the last is the weights, or the index of the ``SHARDS`` that they are published in."""

SHARDS = "model-*.safetensors"

EMBEDDING = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Names of the token embedding, which is shared: a safetensors file may hold it under any of the three."""

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

SIZES: dict[str, dict[str, int]] = {
    name: {"d_model": width, "d_ff": hidden, "num_layers": layers, "num_heads": heads}
    for name, width, hidden, layers, heads in (
        ("t5-small", 512, 1024, 8, 6),
        ("t5-base", 768, 2048, 12, 12),
        ("t5-large", 1024, 2816, 24, 16),
        ("t5-xl", 2048, 5120, 24, 32),
        ("t5-xxl", 4096, 10240, 24, 64),
    )
}
"""Sizes of the published encoders, as their config.json has them; the others are alike: ``COMMON``."""

COMMON: dict[str, Any] = {"d_kv": 64, "vocab_size": 32128, "feed_forward_proj": "gated-gelu"}

WIDTHS = {name: sizes["d_model"] for name, sizes in SIZES.items()}
"""Widths of the published encoders' embeddings."""

LIMIT = 128
"""Maximum number of tokens of a prompt, which is truncated to it."""

CACHE_SIZE = 8192
"""Number of prompts whose embeddings stay in memory: 1.5 GB for XL, at about 0.2 MB each."""


Size = Annotated[int, Field(ge=1, le=1 << 20)]


class EncoderConfig(BaseModel):
    """What ``config.json`` says of a T5; the defaults are those of its class. Its other fields go by their class."""

    model_config = ConfigDict(strict=True, extra="allow")

    model_type: Literal["t5"]
    d_model: Size = 512
    """The width of the embeddings."""
    d_kv: Size = 64
    d_ff: Size = 2048
    num_heads: Annotated[int, Field(ge=1, le=1024)] = 8
    num_layers: Annotated[int, Field(ge=1, le=1024)] = 6
    vocab_size: Size = 32128


class T5Encoder(Frozen, TextEncoder):
    """Embeddings of prompts; that of one prompt does not depend on the others in the batch.

    The weights are stored in bf16; on a CPU they are converted to float32 when first used, never if every prompt is
    cached. On a CPU prompts are encoded one by one, so that results are reproducible bit for bit; on CUDA all prompts
    that are not cached are encoded as one batch, with padding masked. The latest ``CACHE_SIZE`` embeddings are cached
    in CPU memory, and all of them in the folder ``store`` if there is one.
    """

    trainable = False
    limit = LIMIT

    def __init__(self, network: nn.Module, vocabulary: Any, identity: str, store: Path | None = None) -> None:
        super().__init__(network)
        self.width = int(network.config.d_model)  # type: ignore[union-attr]
        self._vocabulary = vocabulary
        self._identity = identity
        self._store = store
        self._cache: OrderedDict[str, Tensor] = OrderedDict()

    def is_cut(self, prompt: str) -> bool:
        """Whether the vocabulary drops tokens of the prompt."""
        return bool(self._vocabulary.encode(normalise(prompt)).overflowing)

    def has_unknown(self, prompt: str) -> bool:
        """Whether the vocabulary has no piece for a part of the prompt; its own are of European languages."""
        unknown = self._vocabulary.token_to_id("<unk>")
        return not prompt.isascii() and unknown in self._vocabulary.encode(normalise(prompt)).ids

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings, float32, padded with 0 to the longest prompt; the mask is False where a token is padding."""
        rows = self._rows(list(dict.fromkeys(prompts)))
        chosen = [rows[prompt].to(self.here.device, torch.float32) for prompt in prompts]
        text = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        lengths = torch.tensor([len(row) for row in chosen], device=text.device)
        return text, torch.arange(text.shape[1], device=text.device)[None] < lengths[:, None]

    def _rows(self, prompts: list[str]) -> dict[str, Tensor]:
        """Each prompt's embedding, (tokens, width), from memory, the store or the network."""
        rows = {prompt: self._cache[prompt] for prompt in prompts if prompt in self._cache}
        for prompt in prompts:
            if prompt not in rows and (found := self._load(prompt)) is not None:
                rows[prompt] = found
        missing = [prompt for prompt in prompts if prompt not in rows]
        size = len(missing) if self.here.is_cuda else 1
        for start in range(0, len(missing), max(size, 1)):
            part = missing[start : start + size]
            for prompt, row in zip(part, self._encode(part), strict=True):
                rows[prompt] = row
                if self._store is not None:
                    write_tensors(self._path(prompt), {"embedding": row}, {"prompt": prompt})
        for prompt in prompts:
            self._cache[prompt] = rows[prompt]
            self._cache.move_to_end(prompt)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return rows

    @torch.no_grad()
    def _encode(self, prompts: list[str]) -> list[Tensor]:
        codes = [torch.tensor(encoding.ids) for encoding in self._vocabulary.encode_batch(prompts)]
        lengths = [len(code) for code in codes]
        ids = nn.utils.rnn.pad_sequence(codes, batch_first=True).to(self.here.device)
        mask = torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
        with torch.autocast(ids.device.type, enabled=False):
            (network,) = self.networks
            if next(network.parameters()).dtype != self.dtype:
                network.to(self.dtype)
            embeddings = network(input_ids=ids, attention_mask=mask.to(ids.device)).last_hidden_state
        return [row[:length].to("cpu", copy=True) for row, length in zip(embeddings, lengths, strict=True)]

    def _path(self, prompt: str) -> Path:
        assert self._store is not None
        kind = "bf16" if self.here.is_cuda else "fp32"
        name = hashlib.blake2b(json.dumps([self._identity, LIMIT, "bf16", prompt]).encode(), digest_size=16).hexdigest()
        return self._store / kind / name[:2] / f"{name}.safetensors"

    def _load(self, prompt: str) -> Tensor | None:
        """A prompt's embedding in the store; None if there is none, or one of another prompt or width."""
        if self._store is None or not (path := self._path(prompt)).is_file():
            return None
        tensors, header = read_tensors(path)
        row = tensors.get("embedding")
        if row is None or row.ndim != 2 or row.shape[1] != self.width or header.get("prompt") != prompt:
            return None
        return row if row.is_floating_point() and bool(row.isfinite().all()) else None


def config_of(folder: Path, where: str) -> dict[str, Any]:
    """A folder's config.json. Raises UserError, beginning with ``where``."""
    return read_config(EncoderConfig, folder, where).model_dump()


def blank_t5(config: Mapping[str, Any], identity: str) -> T5Encoder:
    """The encoder of a config.json on torch's device ``meta``: without weights, to count what it costs."""
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    with torch.device("meta"):
        return T5Encoder(T5EncoderModel(T5Config.from_dict(dict(config))), None, identity)


def load_t5(folder: Path, where: str, identity: str, store: Path | None = None) -> T5Encoder:
    """Load the encoder of a folder with ``FILES``; the decoder's weights are left out.

    where: prefix of the UserError that is raised if a file is missing or does not fit; identity: of the network, part
    of the cache key; store: a folder that caches embeddings, written by rename.
    """
    vocabulary = read_vocabulary(folder, where)
    vocabulary.no_padding()
    vocabulary.enable_truncation(LIMIT)
    network = _weights(folder, where)
    ids = vocabulary.encode("a").ids
    if not ids or ids[-1] != network.config.eos_token_id or vocabulary.get_vocab_size() > network.config.vocab_size:
        raise UserError(f"{where}: tokenizer.json in {folder} is not of this network")
    return T5Encoder(network, vocabulary, identity, store)


def width_of(folder: Path, where: str) -> int:
    """The width of the embeddings, from a folder's config.json."""
    return read_config(EncoderConfig, folder, where).d_model


def encoder_names(names: Iterable[str]) -> list[str]:
    """The names of the encoder's tensors among those of a T5, in order."""
    listed = list(names)
    embedding = next((name for name in EMBEDDING if name in listed), None)
    return [name for name in listed if name == embedding or (name.startswith("encoder.") and name not in EMBEDDING)]


def _weights(folder: Path, where: str) -> Any:
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    try:
        config = T5Config.from_dict(read_config(EncoderConfig, folder, where).model_dump())
        with torch.device("meta"):  # the weights are assigned below
            network: Any = T5EncoderModel(config)
        state = _encoder_state(folder)
    except UserError:
        raise
    except Exception as error:  # transformers and safetensors raise exceptions of various types
        raise UserError(f"{where}: can't be loaded from {folder}: {reason_of(error)}") from None
    expected = {name: tensor.shape for name, tensor in network.state_dict().items() if name not in EMBEDDING[1:]}
    faults = [name for name, shape in expected.items() if name not in state or state[name].shape != shape]
    faults += [name for name in state if name not in expected]
    if faults:
        message = f"{len(faults)} weights are missing, too many or of another shape in {folder}, such as {faults[0]}"
        raise UserError(f"{where}: {message}")
    network.load_state_dict(state, strict=False, assign=True)
    network.set_input_embeddings(network.shared)
    return network


def _encoder_state(folder: Path) -> dict[str, Tensor]:
    """The encoder's tensors in bf16, the token embedding as ``EMBEDDING[0]``; no others are read from disk."""
    from safetensors import safe_open

    names_by_file: dict[str, list[str]] = {}
    for name, file in shards_of(folder, encoder_names).items():
        names_by_file.setdefault(file, []).append(name)
    state: dict[str, Tensor] = {}
    for file in names_by_file or {"model.safetensors": []}:
        with safe_open(folder / file, "pt") as tensors:
            for name in names_by_file.get(file) or encoder_names(tensors.keys()):
                tensor = tensors.get_tensor(name)
                check_weights({name: tensor}, folder / file, {name: torch.bfloat16})
                state[EMBEDDING[0] if name in EMBEDDING else name] = tensor.to(torch.bfloat16)
    return state
