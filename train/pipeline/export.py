"""``train export``: a regression model as one ONNX graph, from the degraded pair to the fused image."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.storage import landing
from clearfuse.synth.types import UserError, reason_of
from clearfuse.train.designs.design import Assembly
from clearfuse.train.models import Inputs
from clearfuse.train.objectives.base import PathObjective
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.text import BytesEncoder, to_bytes

PACKAGES = ("onnx", "onnxscript")
TRACED = (6, 8)
"""Rows and columns of whole tokens of the images that the graph is traced with."""


class FusionGraph(nn.Module):
    """``FusionGraph(assembly)(a, b[, guess][, prompt])``: the fused image in [−1, 1], (1, 3, H, W).

    a, b, guess: images in [−1, 1], (1, 3, H, W), the last one only where the design has one. prompt: of the encoder
    of bytes the codes of ``text.to_bytes``, (1, s), not padded; of another encoder its embedding, (1, m, e); not taken
    by a model without prompts.
    """

    def __init__(self, assembly: Assembly) -> None:
        super().__init__()
        self.assembly = assembly

    def forward(
        self,
        a: Float[Tensor, "1 3 H W"],
        b: Float[Tensor, "1 3 H W"],
        *rest: Tensor,
    ) -> Float[Tensor, "1 3 H W"]:
        """The inputs in the order of ``inputs``."""
        parts = self.assembly
        given = dict(zip(list(inputs(parts))[2:], rest, strict=True))
        pair = parts.tokenizer.encode(a), parts.tokenizer.encode(b)
        guess = parts.tokenizer.encode(given["guess"]) if "guess" in given else None
        text = given.get("prompt", a.new_zeros(1, 0, 0))
        if isinstance(parts.text, BytesEncoder):
            text, _ = parts.text.embed_codes(F.pad(text, (0, -text.shape[1] % BytesEncoder.POOL)))
        latent = parts.network(Inputs(pair, (text, None), guess=guess)).latent
        return parts.tokenizer.decode(latent, (a.shape[2], a.shape[3])).clamp(-1, 1)


def inputs(assembly: Assembly) -> dict[str, tuple[Tensor, dict[int, str]]]:
    """The graph's inputs by name: an example, and the names of the axes of any length."""
    images = ["a", "b", *(["guess"] if assembly.guess is not None else [])]
    # Of a size that no level divides, so that the graph pads; each a tensor of its own, or torch takes them for one.
    f, patch = assembly.tokenizer.f, getattr(assembly.design.config, "patch", 1)
    size = [(patch * count + 1) * f - f // 2 for count in TRACED]
    named = {name: (torch.zeros(1, 3, *size), {2: "height", 3: "width"}) for name in images}
    if isinstance(assembly.text, BytesEncoder):
        named["prompt"] = to_bytes(["remove the haze"], BytesEncoder.POOL * BytesEncoder.TOKENS, 1), {1: "bytes"}
    elif assembly.text.width:
        named["prompt"] = torch.zeros(1, 7, assembly.text.width), {1: "tokens"}
    return named


def export_onnx(pipeline: FusionPipeline, out: str) -> dict[str, list[Any]]:
    """Write a model as one ONNX file; returns the inputs' shapes.

    The graph holds tokenizer, network and, where it is trained with the network, the prompt encoder. Each token passes
    all experts, those not chosen with weight 0. Its metadata ``clearfuse`` is the design, as ``pipeline.json`` has it.
    Raises UserError where a package is missing, the model is none of one call, torch can't express it in ONNX, or the
    file can't be written.
    """
    target = Path(out)
    if target.suffix != ".onnx":
        raise UserError(f"--out {out}: must end in .onnx")
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"train export: {package} is not installed: pip install 'clearfuse[export]'")
    if isinstance(pipeline.design.objective, PathObjective):
        kind = pipeline.design.to_json()["objective"]["kind"]
        raise UserError(f"the model is a {kind}, which a sampler calls in steps: only regressions are exported")
    if pipeline.design.semantics != "none":
        raise UserError(f"the model is given '{pipeline.design.semantics}' semantics, whose encoder is not exported")
    named = inputs(pipeline.assembly)
    program = _traced(FusionGraph(pipeline.assembly.cpu().float().eval()), named)
    program.model.metadata_props["clearfuse"] = json.dumps(pipeline.design.to_json())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with landing(target) as file:
            file.write(program.model_proto.SerializeToString())
    except OSError as error:
        raise UserError(f"--out {out}: {reason_of(error)}") from None
    return {name: [axes.get(i, n) for i, n in enumerate(example.shape)] for name, (example, axes) in named.items()}


def export_merged(pipeline: FusionPipeline, out: str) -> None:
    """Write a model whose base has its adapters in it to a folder. Raises UserError where it has none, or can't be."""
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {out}: must be a new or an empty folder")
    try:
        pipeline.save_pretrained(folder, merge=True)
    except OSError as error:
        raise UserError(f"--out {out}: {reason_of(error)}") from None


def _traced(graph: FusionGraph, named: dict[str, tuple[Tensor, dict[int, str]]]) -> Any:
    """torch's ONNX program of the graph. Raises UserError, with the first cause's first line, where there is none."""
    first, second, *rest = (axes for _, axes in named.values())
    shapes = (first, second, *([tuple(rest)] if rest else []))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                graph, tuple(example for example, _ in named.values()), dynamo=True, verbose=False,
                input_names=list(named), output_names=["fused"], dynamic_shapes=shapes,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(f"torch can't express the model in ONNX: {reason_of(cause)}") from None
