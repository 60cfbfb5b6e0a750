"""Detectors and segmenters of transformers: found by name, hub id or folder, or made small here, without a download.

A detector is one that predicts a set (RT-DETR, DETR and their kin): ``logits`` and ``pred_boxes`` by query. A segmenter
gives ``logits`` by pixel, at any resolution. Weights are safetensors alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from clearfuse.synth.files.checkpoints import check_weights
from clearfuse.synth.files.storage import landing
from clearfuse.synth.types import UserError, reason_of
from clearfuse.train.downstream.coco import MOST, Detections
from clearfuse.train.downstream.sources import Kind
from clearfuse.train.weights.source import CONFIG, Published, find_source, read_config
from clearfuse.train.weights.tensors import write_tensors

PREPROCESSOR, WEIGHTS = "preprocessor_config.json", "model.safetensors"
FILES = (CONFIG, PREPROCESSOR, "model*.safetensors*")
TINY = "tiny"
"""The name of a small network, made here, whose weights are drawn: for a CPU, and to try things."""
PUBLISHED: dict[str, Published] = {
    "rt-detr": Published("PekingU/rtdetr_r18vd", None, files=FILES, licence="Apache-2.0"),
    "rt-detr-r50": Published("PekingU/rtdetr_r50vd", None, files=FILES, licence="Apache-2.0"),
    "segformer-b0": Published("nvidia/segformer-b0-finetuned-ade-512-512", None, files=FILES, licence="own terms"),
    "segformer-b2": Published("nvidia/segformer-b2-finetuned-ade-512-512", None, files=FILES, licence="own terms"),
}
"""No commit is pinned: the newest one is used, said and recorded."""
USUAL: dict[Kind, str] = {"detection": "rt-detr", "segmentation": "segformer-b0"}
"""What is fitted on a GPU where nobody names a model; elsewhere ``TINY``."""
CLASS: dict[Kind, str] = {
    "detection": "AutoModelForObjectDetection",
    "segmentation": "AutoModelForSemanticSegmentation",
}
SIZES: dict[Kind, tuple[int, int]] = {"detection": (640, 640), "segmentation": (512, 512)}
"""Height and width of what a network sees where its files do not say."""
TINY_SIZE = (192, 256)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, by channel: transformers' own where a file says that it normalises, and not how."""

Side = Annotated[int, Field(ge=32, le=4096)]
Three = tuple[float, float, float]


class Size(BaseModel):
    """A size of pictures; that of a shortest side is not taken."""

    model_config = ConfigDict(strict=True)

    height: Side | None = None
    width: Side | None = None


class Preprocessor(BaseModel):
    """What ``preprocessor_config.json`` says, of which only this is read."""

    model_config = ConfigDict(strict=True)

    size: Size | int | None = None
    do_normalize: bool = True
    image_mean: Three = MEAN
    image_std: Three = DEVIATION


@dataclass(frozen=True)
class Preparation:
    """What a network sees of a picture: resized to (height, width), then (x − mean) / deviation of values in [0, 1]."""

    size: tuple[int, int]
    mean: Three = (0.0, 0.0, 0.0)
    deviation: Three = (1.0, 1.0, 1.0)

    def resized(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """The picture at the network's size; means of pixels where it shrinks."""
        height, width = self.size
        shrinks = height * width < image.shape[0] * image.shape[1]
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def __call__(self, images: UInt8[np.ndarray, "n h w 3"], device: torch.device) -> Float[Tensor, "n 3 h w"]:
        """What the network sees of resized pictures."""
        mean, deviation = (torch.tensor(each, device=device)[:, None, None] for each in (self.mean, self.deviation))
        return (torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / deviation


@dataclass(frozen=True)
class Network:
    """A detector or segmenter. reference: what it came from, to be found again; fresh: weights that were drawn here."""

    kind: Kind
    module: nn.Module
    classes: tuple[str, ...]
    preparation: Preparation
    reference: str
    fresh: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.module.parameters()).device

    @torch.no_grad()
    def detect(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Detections]:
        """The ``MOST`` most certain boxes of pictures of any size, in their pixels."""
        out = self.module(pixel_values=self._seen(images))
        scores = _scores(out.logits.float(), len(self.classes)).flatten(1)
        best, at = scores.topk(min(MOST, scores.shape[1]), dim=1)
        found: list[Detections] = []
        for image, score, place, boxes in zip(images, best, at, out.pred_boxes.float(), strict=True):
            query, kind = place // len(self.classes), place % len(self.classes)
            x, y, width, height = boxes[query].cpu().double().unbind(-1)
            edges = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1).clamp(0, 1).numpy()
            corners = edges * np.array([image.shape[1], image.shape[0]] * 2)
            sides = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
            found.append(Detections(sides, kind.cpu().numpy(), score.cpu().double().numpy()))
        return found

    @torch.no_grad()
    def segment(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Integer[np.ndarray, "h w"]]:
        """The class of each pixel of pictures of any size: the greatest logit, resized to theirs."""
        logits = self.module(pixel_values=self._seen(images)).logits.float()
        return [
            nn.functional.interpolate(one[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
            .argmax(0).to(torch.uint8).cpu().numpy()
            for image, one in zip(images, logits, strict=True)
        ]  # fmt: skip

    def _seen(self, images: Sequence[np.ndarray]) -> Tensor:
        self.module.eval()
        return self.preparation(np.stack([self.preparation.resized(image) for image in images]), self.device)


def _scores(logits: Float[Tensor, "n q k"], classes: int) -> Float[Tensor, "n q classes"]:
    """Probabilities by query and class: a sigmoid each, or a softmax where a class more stands for nothing."""
    return logits.sigmoid() if logits.shape[-1] == classes else logits.softmax(-1)[..., :classes]


@contextmanager
def drawn_by(seed: int) -> Iterator[None]:
    """Let what draws from torch's own generator draw from one of this seed, and leave that generator as it was.

    transformers draws fresh weights, and RT-DETR its noisy boxes, from there alone.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def make_network(
    kind: Kind, reference: str, classes: Sequence[str], seed: int, size: tuple[int, int] | None = None
) -> Network:
    """A network to be fitted to these classes: its last layers are fresh, of ``TINY`` all.

    reference: ``TINY`` or see ``weights.source``. size: (height, width) of what it sees; None: its own. Raises
    UserError where there is no such network, or it is none of the kind.
    """
    import transformers

    names = {"num_labels": len(classes), "id2label": dict(enumerate(classes))}
    names["label2id"] = {name: number for number, name in enumerate(classes)}
    with drawn_by(seed):
        if reference == TINY:
            config = _tiny(kind, names)
            module = getattr(transformers, CLASS[kind]).from_config(config)
            preparation = Preparation(size or TINY_SIZE)
            return Network(kind, module, tuple(classes), preparation, TINY, tuple(module.state_dict()))
        source = find_source("model", reference, PUBLISHED, files=FILES, extra=(TINY,))
        where = f"--model {reference}"
        module, fresh = _loaded(kind, source.folder, where, ignore_mismatched_sizes=True, **names)
    if len(fresh) > len(module.state_dict()) // 2:
        raise UserError(
            f"{where}: {len(fresh)} of {len(module.state_dict())} weights are not in it, such as {fresh[0]}"
        )
    preparation = _preparation(kind, source.folder, where)
    if size is not None:
        preparation = replace(preparation, size=size)
    return Network(kind, module, tuple(classes), preparation, source.reference, tuple(fresh))


def read_network(kind: Kind, folder: Path, classes: Sequence[str], where: str) -> Network:
    """A network that ``write_network`` wrote. Raises UserError, ``where`` first, where it is not whole."""
    module, fresh = _loaded(kind, folder, where)
    if fresh:
        raise UserError(f"{where}: {len(fresh)} weights are missing, such as {fresh[0]}")
    config: Any = module.config
    named = tuple(config.id2label[number] for number in range(config.num_labels))
    if named != tuple(classes):
        raise UserError(f"{where}: its config.json has the classes {', '.join(named)}, not {', '.join(classes)}")
    return Network(kind, module, named, _preparation(kind, folder, where), str(folder))


def write_network(network: Network, folder: Path) -> None:
    """Write config.json, preprocessor_config.json and, last, model.safetensors: a folder that transformers reads."""
    height, width = network.preparation.size
    prepared = {
        "do_resize": True, "size": {"height": height, "width": width}, "do_rescale": True, "do_normalize": True,
        "image_mean": network.preparation.mean, "image_std": network.preparation.deviation,
    }  # fmt: skip
    config: Any = network.module.config
    texts = {CONFIG: config.to_json_string(use_diff=True), PREPROCESSOR: json.dumps(prepared, indent=1) + "\n"}
    for name, text in texts.items():
        with landing(folder / name) as file:
            file.write(text.encode())
    state = network.module.state_dict()
    shared: dict[int, str] = {}  # one tensor under several names, as RT-DETR has its last layers, is written once
    own = {name: shared.setdefault(tensor.data_ptr() or -len(shared), name) for name, tensor in state.items()}
    write_tensors(
        folder / WEIGHTS, {name: state[name] for name, first in own.items() if name == first}, {"format": "pt"}
    )


def _loaded(kind: Kind, folder: Path, where: str, **more: Any) -> tuple[nn.Module, list[str]]:
    """The network of a folder and the names of weights that it lacks. Raises UserError where it is none of the kind."""
    import transformers

    import clearfuse.train.downstream.tiny  # noqa: F401  # transformers learns of it

    if not any(folder.glob(FILES[-1])):
        raise UserError(f"{where}: {FILES[-1]} is missing in {folder}")
    try:
        module, report = getattr(transformers, CLASS[kind]).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True, **more
        )
    except Exception as error:  # transformers and safetensors raise exceptions of various types
        raise UserError(f"{where}: is no network for {kind} in {folder}: {reason_of(error)}") from None
    check_weights(module.state_dict(), folder, {name: tensor.dtype for name, tensor in module.state_dict().items()})
    mismatched = [one[0] if isinstance(one, tuple) else one for one in report["mismatched_keys"]]
    return module, sorted({*report["missing_keys"], *mismatched})


def _preparation(kind: Kind, folder: Path, where: str) -> Preparation:
    says = read_config(Preprocessor, folder, where, PREPROCESSOR)
    side = (says.size, says.size) if isinstance(says.size, int) else None
    if isinstance(says.size, Size) and says.size.height and says.size.width:
        side = says.size.height, says.size.width
    if not says.do_normalize:
        return Preparation(side or SIZES[kind])
    return Preparation(side or SIZES[kind], says.image_mean, says.image_std)


def _tiny(kind: Kind, names: dict[str, Any]) -> Any:
    """The config of a small SegFormer, or of our small detector."""
    from transformers import SegformerConfig

    if kind == "segmentation":
        return SegformerConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 96], num_attention_heads=[1, 2, 4, 4],
            mlp_ratios=[2, 2, 2, 2], decoder_hidden_size=64, hidden_dropout_prob=0.0, classifier_dropout_prob=0.0,
            drop_path_rate=0.0, **names,
        )  # fmt: skip
    from clearfuse.train.downstream.tiny import TinyDetectorConfig

    return TinyDetectorConfig(**names)
