"""A fitted model as users have it: two images and a prompt in, one image out.

A folder holds ``pipeline.json`` (the design) and ``model.safetensors`` (the weights); a run of ``train fit`` is one.
Tokenizer and prompt encoder are referred to, or lie beside them in ``tokenizer/`` and ``text/``.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.files.storage import landing
from clearfuse.synth.fusers.pyramid.region import full_region
from clearfuse.synth.types import TASKS, UserError, unknown
from clearfuse.train import text as texts
from clearfuse.train import tokenizers
from clearfuse.train.data.batch import to_tensor
from clearfuse.train.designs.design import AS_DESIGNED, Assembly, Design, Parts
from clearfuse.train.objectives import Objective
from clearfuse.train.objectives.noise import NoiseField
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.pipeline.tiles import OVERLAP, TILE, tiled
from clearfuse.train.text import plain_request
from clearfuse.train.weights import hub
from clearfuse.train.weights.tensors import read_tensors, write_tensors

DESIGN, WEIGHTS = "pipeline.json", "model.safetensors"
FILES = (DESIGN, WEIGHTS, "tokenizer/*", "text/*")
"""What a pipeline is, its embedded parts among it."""


class FusionPipeline:
    """``FusionPipeline.from_pretrained(dir_or_hub_id)(a, b, task="vif", prompt="remove the haze")``."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly.eval()

    @property
    def design(self) -> Design:
        """What the model is."""
        return self.assembly.design

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.assembly.parameters())).device

    def to(self, device: str | torch.device) -> FusionPipeline:
        """Move the weights."""
        self.assembly.to(device)
        return self

    @staticmethod
    def from_pretrained(
        name: str | Path,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        *,
        parts: Parts = AS_DESIGNED,
        compiled: bool = False,
    ) -> FusionPipeline:
        """The pipeline of a folder (a run is one) or of a repository on the Hugging Face hub.

        parts: where its tokenizer and prompt encoder are, where neither it nor their references say so. compiled: the
        network by torch.compile, at its first call, which wants a C++ compiler. Raises UserError where there is no
        such pipeline, its weights are of another design, or a part is missing or another than it was trained with.
        """
        folder = Path(name) if Path(name).exists() else hub.pull(str(name), revision, FILES)
        if not (folder / DESIGN).is_file():
            raise UserError(f"{name}: no model here: {DESIGN} is missing")
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{name}: no weights yet: {WEIGHTS} is missing; train fit writes it with each checkpoint")
        design = Design.from_json(_read(folder), str(folder / DESIGN))
        try:
            assembly = Assembly(design, torch.Generator(), _with_own(parts, design, folder))
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        check_parts(folder, assembly)
        tensors, _ = read_tensors(folder / WEIGHTS)
        try:
            assembly.load_state_dict(tensors)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{folder / WEIGHTS}: weights of another design than {DESIGN}'s: {said}") from None
        if compiled:
            assembly.compile_for(nn.Module.compile)  # in place: the names of its weights stay
        return FusionPipeline(assembly.to(device))

    def save_pretrained(self, folder: str | Path, embed: bool = False) -> None:
        """Write the pipeline into a folder. embed: and its tokenizer and prompt encoder, which are else referred to."""
        save(self.assembly, Path(folder), self.assembly.state_dict(), embed)

    def push_to_hub(
        self,
        repo: str,
        *,
        embed: bool = False,
        private: bool = True,
        revision: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Send the pipeline, with a card, to the model repository ``NAME/MODEL`` of the hub; its address.

        embed: as ``save_pretrained``; needed where a part is a folder of this machine. private: of a repository that
        is made here. Raises UserError where the hub refuses.
        """
        own = [kind for kind, found in self.assembly.found.items() if found.digest is not None]
        if own and not embed:
            raise UserError(
                f"{repo}: the {own[0]} is a folder of this machine, which nobody else has: push with embed=True"
            )

        def write(folder: Path) -> None:
            self.save_pretrained(folder, embed)
            (folder / "README.md").write_text(card(repo, self.design))

        return hub.push(repo, write, private=private, revision=revision, endpoint=endpoint)

    def __call__(
        self,
        a: np.ndarray,
        b: np.ndarray,
        *,
        task: str,
        prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | None = None,
        tile: int = TILE,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The fused image of a pair of any size, uint8 ``(h, w)`` or ``(h, w, c)``; one channel is grey.

        prompt: what to do; None asks for the task's fusion alone. seed: of a flow model's noise. steps, sampler and
        guidance (how strongly the prompt is followed, 1 as it was learned): of a flow model, instead of its design's.
        tile: larger images are fused in tiles of this side, in pixels, all from one field of noise.
        Raises UserError where the sizes differ or an option is of no use.
        """
        if task not in TASKS:
            raise unknown("task", task, TASKS)
        if a.shape[:2] != b.shape[:2]:
            sizes = (f"{x.shape[1]}x{x.shape[0]}" for x in (a, b))
            raise UserError("the two images differ in size: {} and {}".format(*sizes))
        objective = self._objective(steps=steps, sampler=sampler, guidance=guidance)
        words = plain_request(task) if prompt is None else prompt
        images = [_coloured(a), _coloured(b)]
        if self.assembly.prior is not None:
            grey = [x if x.ndim == 3 else x[..., None] for x in (a, b)]
            images.append(_coloured(self.assembly.prior(*grey, task)(full_region(a.shape))))
        given = [to_tensor([x]).to(self.device) for x in images]

        f, cell = self.assembly.tokenizer.f, self._cell
        rows, columns = -(-a.shape[0] // f), -(-a.shape[1] // f)

        def fuse(parts: Sequence[Tensor], top: int, left: int) -> Tensor:
            x, y, *prior = parts
            rng = NoiseField(torch.Generator().manual_seed(seed), rows, columns, top // f, left // f)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                return self.assembly.fuse(x, y, [words], rng, objective, *prior).float()

        if tile < 2 * OVERLAP:
            raise UserError(f"--tile {tile}: must be at least {2 * OVERLAP} pixels")
        sides = [side // cell * cell for side in (tile, OVERLAP)]
        fused = tiled(fuse, given, tile=sides[0], overlap=max(sides[1], cell), multiple=cell)
        return ((fused[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    @property
    def _cell(self) -> int:
        """Pixels of a side of an image token: where tiles may be cut."""
        return self.assembly.tokenizer.f * getattr(self.design.config, "patch", 1)

    def _objective(self, **asked: int | float | str | None) -> Objective:
        """The design's, with the sampling asked for."""
        own = self.design.objective
        given = {name: value for name, value in asked.items() if value is not None}
        if not given:
            return own
        if isinstance(own, Regression):
            raise UserError(f"--{next(iter(given))}: the model is a regression, which has no steps and no sampler")
        try:
            return dataclasses.replace(own, **given)
        except ValueError as error:
            raise UserError(str(error)) from None


def save(assembly: Assembly, folder: Path, weights: dict[str, Any], embed: bool = False) -> None:
    """Write a pipeline: where asked its parts, the design, then the weights, each by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    if embed:
        for kind, found in assembly.found.items():
            _embed(folder / kind, kind, found.files)
    write_design(folder, assembly)
    write_tensors(folder / WEIGHTS, weights, {"format": "pt"})


def _embed(folder: Path, kind: str, files: Sequence[Path]) -> None:
    for path in files:
        if path.suffix == ".jit":
            raise UserError(f"the {kind} is TorchScript, which is code: it can't be embedded")
        if not path.is_file():
            raise UserError(f"the {kind} can't be embedded: {path} is gone")
        folder.mkdir(parents=True, exist_ok=True)
        with landing(folder / path.name) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file)


def write_design(folder: Path, assembly: Assembly) -> None:
    """``pipeline.json``: the design, and the digests of the parts that only their content names."""
    digests = {kind: found.digest for kind, found in assembly.found.items() if found.digest is not None}
    write_json(folder / DESIGN, {**assembly.design.to_json(), "digests": digests})


def check_parts(folder: Path, assembly: Assembly) -> None:
    """Raises UserError where a part is another than the one that the pipeline in the folder was trained with."""
    if not (folder / DESIGN).is_file():
        return
    held = _read(folder).get("digests", {})
    for kind, found in assembly.found.items():
        before = held.get(kind) if isinstance(held, dict) else None
        if found.digest is not None and before is not None and before != found.digest:
            raise UserError(
                f"{folder}: its {kind} is another than '{found.reference}': it was trained with the files of digest "
                f"{before}, and these have {found.digest}"
            )


def _read(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / DESIGN).read_bytes())
    except ValueError as error:
        raise UserError(f"{folder / DESIGN}: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{folder / DESIGN}: must hold an object")
    return data


def _with_own(parts: Parts, design: Design, folder: Path) -> Parts:
    """The parts, those that are embedded in the pipeline's folder among them where nothing else is asked for."""

    def own(kind: str, reference: str, names: Sequence[str]) -> str | None:
        if not (folder / kind).is_dir():
            return None
        name = reference.partition("=")[0].partition("@")[0]
        return f"{name}={folder / kind}" if name in names else str(folder / kind)

    return dataclasses.replace(
        parts,
        tokenizer=parts.tokenizer or own("tokenizer", design.tokenizer, tokenizers.NAMES),
        text=parts.text or own("text", design.text, texts.NAMES),
    )


def card(repo: str, design: Design) -> str:
    """The model card of a repository: what the pipeline is, and how it is used."""
    return f"""---
library_name: clearfuse
pipeline_tag: image-to-image
tags:
- image-fusion
---
# {repo}

Fuses two images and removes their degradations, as a prompt asks: `{design.model}`, tokenizer `{design.tokenizer}`,
prompts `{design.text}`, objective `{design.to_json()["objective"]["kind"]}`.

```python
from clearfuse import FusionPipeline

fused = FusionPipeline.from_pretrained("{repo}")(a, b, task="vif", prompt="remove the haze")
```
"""


def _coloured(image: np.ndarray) -> np.ndarray:
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"an image is uint8 (h, w), (h, w, 1) or (h, w, 3), not {image.dtype} {image.shape}")
    return np.repeat(image, 3, 2) if image.shape[2] == 1 else image
