"""The fusion pipeline: two images and a prompt in, one image out.

A pipeline's folder holds ``pipeline.json`` (the design) and ``model.safetensors`` (the weights); the folder of a run of
``train fit`` is one. Tokenizer and encoders are references, or embedded in ``tokenizer/``, ``text/`` and
``semantics/``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from clearfuse.synth import color, console
from clearfuse.synth.files.checkpoints import check_entries, fill
from clearfuse.synth.files.schema import validate
from clearfuse.synth.fusers.pyramid.region import Region
from clearfuse.synth.types import OTHER, TASKS, BadPair, Task, UserError, WorkIncomplete, check_name
from clearfuse.train import semantics as semantic
from clearfuse.train import text as texts
from clearfuse.train import tokenizers
from clearfuse.train.data.batch import stack_images, to_tensor
from clearfuse.train.designs.design import AS_DESIGNED, Assembly, Design, Parts
from clearfuse.train.designs.folder import DESIGN, FILES, WEIGHTS, check_parts, read_folder, save, save_merged
from clearfuse.train.models.base import Semantics
from clearfuse.train.objectives import Objective
from clearfuse.train.objectives.noise import NoiseField
from clearfuse.train.pipeline import adapters
from clearfuse.train.pipeline.blind import Request, asks_for_fusion, find_request
from clearfuse.train.pipeline.shipped import DEFAULT, shipped_folder
from clearfuse.train.pipeline.tiles import OVERLAP, TILE, fuse_tiled
from clearfuse.train.text import plain_request
from clearfuse.train.weights import base as bases
from clearfuse.train.weights import hub
from clearfuse.train.weights.tensors import read_tensors


class FusionPipeline:
    """``FusionPipeline.from_pretrained(dir_or_hub_id)(a, b, task="vif", prompt="remove the haze")``."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly.eval()
        self._cut: set[str] = set()  # prompts longer than the encoder's limit, each said once
        self.notes: dict[str, tuple[float, ...]] = {}
        """What the network noted of the latest pair, the mean over its tiles: see ``Prediction``."""

    @property
    def design(self) -> Design:
        """The design of the model."""
        return self.assembly.design

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(iter(self.assembly.parameters())).device

    def to(self, device: str | torch.device) -> FusionPipeline:
        """Move the weights."""
        self.assembly.to(device)
        return self

    @staticmethod
    def from_pretrained(
        name: str | Path | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        *,
        parts: Parts = AS_DESIGNED,
        compiled: bool = False,
    ) -> FusionPipeline:
        """Load the pipeline of a folder (a run's too), of a repository on the Hugging Face hub, or a shipped one.

        name: a folder, a hub id, or a name in ``pipeline.shipped.SHIPPED`` or ``adapters.PUBLISHED``, by default the
        first of these; adapters as peft writes them are a pipeline too. parts: its
        tokenizer and prompt encoder, in place of those it embeds or refers to. compiled: use torch.compile, which
        compiles at the first call and needs a C++ compiler. Raises UserError if there is no such pipeline, its weights
        do not fit its design, or a part is missing or differs from the one it was trained with.
        """
        name = DEFAULT if name is None else name
        folder = Path(name)
        if not folder.exists():
            repo = adapters.PUBLISHED.get(str(name), str(name))
            folder = shipped_folder(str(name)) or hub.pull(repo, revision, (*FILES, *adapters.FILES))
        found = None if (folder / DESIGN).is_file() else adapters.adapters_in(folder)
        if found is None and not (folder / DESIGN).is_file():
            raise UserError(f"{name}: no model here: {DESIGN} is missing")
        if found is None and not (folder / WEIGHTS).is_file():
            raise UserError(f"{name}: no weights yet: {WEIGHTS} is missing; train fit writes it with each checkpoint")
        design = read_folder(folder).design() if found is None else adapters.design_of_adapters(found)
        tensors = read_tensors(folder / WEIGHTS)[0] if found is None else None

        def check(network: nn.Module) -> None:
            """A network of a size that its weights have not is refused before it takes the memory of that size."""
            if tensors is not None:
                wanted = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
                own = {name: tensor for name, tensor in tensors.items() if name.startswith("network.")}
                check_entries(wanted, own, folder / WEIGHTS, f"the design in {DESIGN}")

        try:
            assembly = Assembly(design, torch.Generator(), _with_embedded(parts, design, folder), check=check)
        except UserError as error:
            if str(error).startswith(str(folder / WEIGHTS)):
                raise
            where = f"{name}: {DESIGN}" if parts == AS_DESIGNED else name
            raise UserError(f"{where}: {error}") from None
        check_parts(folder, assembly)
        if tensors is None:
            assert found is not None
            tensors = adapters.read_adapters(found, assembly.design.config)
        fill(assembly, tensors, folder / WEIGHTS if found is None else found, f"the design in {DESIGN}")
        if compiled:
            assembly.compile_for(nn.Module.compile)  # in place: the names of its weights stay
        return FusionPipeline(assembly.to(device))

    def save_pretrained(self, folder: str | Path, embed: bool = False, merge: bool = False) -> None:
        """Write the pipeline to a folder. embed: include tokenizer, encoders and base rather than refer to them.

        merge: write a base that has the adapters' changes in it, in place of both: ``base/`` is then a folder that
        diffusers reads too. Raises UserError where there is nothing to merge.
        """
        if merge:
            save_merged(self.assembly, Path(folder), embed)
        else:
            save(self.assembly, Path(folder), self.assembly.state_dict(), embed)

    def push_to_hub(
        self,
        repo: str,
        *,
        embed: bool = False,
        merge: bool = False,
        private: bool = True,
        revision: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Upload the pipeline, with a model card, to the repository ``NAME/MODEL`` of the hub; return its URL.

        embed, merge: see ``save_pretrained``; embed is required if a part is a local folder, but a base that is merged.
        private: applies if the repository is created. Raises UserError if the hub refuses.
        """
        found = self.assembly.found._asdict().items()
        local = [kind for kind, part in found if part.digest is not None and not (merge and kind == "base")]
        if local and not embed:
            raise UserError(
                f"{repo}: the {local[0]} is a folder of this machine, which nobody else has: push with embed=True"
            )

        def write(folder: Path) -> None:
            self.save_pretrained(folder, embed, merge)
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
        guidance_images: float | None = None,
        strength: float | None = None,
        tile: int | None = None,
        prior: bool = True,
    ) -> UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]:
        """Fuse a pair of any size, ``(h, w)`` or ``(h, w, c)``, grey if c is 1; the same type back.

        a, b: code values, uint8, or float32 in [0, 1]; where one is float32, so is the fused image. task: other for a
        pair of another kind. prompt: the instruction; None: what ``request`` finds, said in a line; empty or fuse: the
        task's fusion alone. seed: of a flow model's noise.
        steps, sampler, guidance (scale of classifier-free guidance by the prompt, 1: none), guidance_images (the same
        by the images): override the design's, for flow models only. strength: share in [0, 1] of what is asked for, or
        found, that is removed; below 1 (None) by a model with a dial only. tile: larger images are fused in tiles of
        this side in pixels, which share one field of noise; None: the family's. prior: False puts zeros in place of the
        semantic prior. Raises UserError if the sizes differ or an option does not apply, and WorkIncomplete if the
        network's result is not finite.
        """
        check_name("task", task, (*TASKS, OTHER))
        if a.shape[:2] != b.shape[:2]:
            sizes = (f"{x.shape[1]}x{x.shape[0]}" for x in (a, b))
            raise UserError("the two images differ in size: {} and {}".format(*sizes))
        strength = 1.0 if strength is None else float(strength)
        if not 0 <= strength <= 1:
            raise UserError(f"--strength {strength:g}: must be in [0, 1]")
        if strength < 1 and not self.assembly.has_dial:
            raise UserError("--strength: the model has no dial: it removes all of what it is asked to")
        share = torch.tensor([strength], device=self.device)
        objective = self._objective(steps=steps, sampler=sampler, guidance=guidance, guidance_images=guidance_images)
        images = [_checked(a), _checked(b)]
        if prompt is None:
            asked = self.request(*images, task=task)
            prompt = asked.prompt
            if self.reads_prompts:
                console.note(asked.line())
        prompt = plain_request(task) if asks_for_fusion(prompt) else prompt
        if self.assembly.text.is_cut(prompt) and prompt not in self._cut:
            self._cut.add(prompt)
            console.note(f"the prompt is cut: '{self.design.text}' reads {self.assembly.text.limit} tokens of it")
        if self.assembly.text.has_unknown(prompt) and prompt not in self._cut:
            self._cut.add(prompt)
            console.note(f"the prompt has characters that '{self.design.text}' does not know")
        if np.float32 in (a.dtype, b.dtype):
            images = [color.code_to_float(x) if x.dtype == np.uint8 else x for x in images]
        guess = None if self.assembly.guess is None else self.assembly.guess(*images, _guessed_as(task, b))
        semantics = self._seen([_to_colour(color.to_uint8(x) if x.dtype != np.uint8 else x) for x in images], task)
        if not prior:
            if semantics is None:
                raise UserError(f"a '{self.design.model}' without a semantic prior: there is none to leave out")
            semantics = torch.zeros_like(semantics[0]), semantics[1]
        noted: list[Mapping[str, Tensor]] = []
        f, cell = self.assembly.tokenizer.f, self._cell
        rows, columns = -(-a.shape[0] // f), -(-a.shape[1] // f)

        def fuse(at: Region) -> Tensor:
            parts = [image[at] for image in images] + ([] if guess is None else [guess(at)])
            x, y, *first = (to_tensor([_to_colour(part)]).to(self.device) for part in parts)
            rng = NoiseField(torch.Generator().manual_seed(seed), rows, columns, at[0].start // f, at[1].start // f)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                made = self.assembly.fuse(x, y, [prompt], rng, objective, *first, semantics=semantics, strength=share)
            noted.append(self.assembly.notes)
            return made.float()

        side: int = getattr(self.design.config, "tile", TILE) if tile is None else tile
        if side < 2 * OVERLAP:
            raise UserError(f"--tile {side}: must be at least {2 * OVERLAP} pixels")
        sides = [side // cell * cell for side in (side, OVERLAP)]
        with torch.inference_mode():
            fused = fuse_tiled(fuse, a.shape[:2], tile=sides[0], overlap=max(sides[1], cell), multiple=cell)
        self.notes = {
            name: tuple(torch.cat([notes[name] for notes in noted]).float().mean(0).tolist()) for name in noted[0]
        }
        if not fused.isfinite().all():
            raise WorkIncomplete(f"the fused image of {a.shape[1]}x{a.shape[0]} has values that are not finite")
        return _to_image(fused, codes=images[0].dtype == np.uint8)

    @property
    def reads_prompts(self) -> bool:
        """Whether the model has a prompt encoder."""
        return self.assembly.text.width > 0

    def request(self, a: np.ndarray, b: np.ndarray, *, task: str, language: str = "en") -> Request:
        """What a pair without a prompt is asked for, images as in a call: see ``blind.find_request``.

        Its fusion alone where the model reads no prompts, the pair is of another kind, or too small to tell.
        """
        try:
            return find_request(task, color.as_hwc(a), color.as_hwc(b), self.reads_prompts, language)
        except BadPair as error:
            return Request(why=str(error))

    @torch.inference_mode()
    def _seen(self, pair: Sequence[np.ndarray], task: str) -> Semantics | None:
        """What the design's encoder says of both whole pictures, before they are cut into tiles."""
        encoder = self.assembly.semantics
        if encoder is None:
            return None
        views = np.concatenate([encoder.view(picture) for picture in pair])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return encoder(stack_images([views]).to(self.device), [task])

    @property
    def _cell(self) -> int:
        """Pixels of a side of an image token: where tiles may be cut."""
        return self.assembly.tokenizer.f * self.design.config.patch

    def _objective(self, **sampling: int | float | str | None) -> Objective:
        """The design's objective, with the given sampling options."""
        objective = self.design.objective
        given = {name: value for name, value in sampling.items() if value is not None}
        if not given:
            return objective
        if missing := given.keys() - {field.name for field in dataclasses.fields(objective)}:
            name = min(missing)
            raise UserError(f"--{name.replace('_', '-')}: the model is a {objective.kind}, which has no {name}")
        return validate(type(objective), dataclasses.asdict(objective) | given, "sampling")


def _guessed_as(task: str, b: np.ndarray) -> Task:
    """The task of a first guess: for another kind of pair that of two spectra where b is grey, else of two foci."""
    if task == OTHER:
        return "vif" if b.ndim == 2 or b.shape[2] == 1 else "mff"
    return next(one for one in TASKS if one == task)


def _with_embedded(parts: Parts, design: Design, folder: Path) -> Parts:
    """The parts, completed by those embedded in the pipeline's folder."""

    def embedded(kind: str, reference: str, names: Sequence[str]) -> str | None:
        if not (folder / kind).is_dir():
            return None
        name = reference.partition("=")[0].partition("@")[0]
        return f"{name}={folder / kind}" if name in names else str(folder / kind)

    return dataclasses.replace(
        parts,
        tokenizer=parts.tokenizer or embedded("tokenizer", design.tokenizer, tokenizers.NAMES),
        text=parts.text or embedded("text", design.text, texts.NAMES),
        semantics=parts.semantics or embedded("semantics", design.semantics, semantic.NAMES),
        base=parts.base or embedded("base", design.base, bases.NAMES),
    )


def card(repo: str, design: Design) -> str:
    """The model card of a repository: the pipeline's design, and how to use it."""
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


def _checked(image: np.ndarray) -> np.ndarray:
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype not in (np.uint8, np.float32) or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            f"an image is uint8 or float32 (h, w), (h, w, 1) or (h, w, 3), not {image.dtype} {image.shape}"
        )
    return image


def _to_colour(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, 2) if image.shape[2] == 1 else image


@torch.inference_mode()
def _to_image(fused: Tensor, codes: bool) -> np.ndarray:
    """The image of a tensor in [−1, 1], which is written over: uint8, or float32 in [0, 1]."""
    fused = fused[0].clamp_(-1, 1).add_(1)
    fused = fused.mul_(127.5).round_().to(torch.uint8) if codes else fused.mul_(0.5)
    return fused.permute(1, 2, 0).cpu().contiguous().numpy()
