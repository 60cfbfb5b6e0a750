"""A small detector that learns in minutes on a CPU, as a model of transformers: a peak for each object.

An object is a peak at its centre in the map of its class, and the distances from there to its four sides; maps are of a
quarter of the picture's sides. Source: Zhou, Wang, Krähenbühl, Objects as points, arXiv:1904.07850, 2019. Boxes are
learned in all cells near a centre, which takes fewer steps: Liu, Zheng, Xu, Yang, Liu, Cai, Training-time-friendly
network for real-time object detection, AAAI 2020. RT-DETR learns next to nothing in these steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForObjectDetection, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

STRIDE = 4
SPREAD = 0.54 / 6
"""Standard deviation of a peak, as a share of the object's sides: TTFNet's."""
LEAST_SPREAD = 0.3
"""Of a small object's peak, cells."""
PRIOR = -4.6
"""Logit of a class before it is learned: one cell in a hundred."""
BOX_WEIGHT = 5.0
"""Of the loss of boxes: TTFNet's."""
NO_PEAK = -30.0
"""Logit of what is beside a peak."""


class TinyDetectorConfig(PretrainedConfig):
    """The detector's channels at strides 2, 4, 8, 16 and 32."""

    model_type = "clearfuse_tiny_detector"

    def __init__(self, channels: Sequence[int] = (16, 24, 32, 48, 64), **more: Any) -> None:
        self.channels = list(channels)
        super().__init__(**more)


@dataclass
class TinyDetectorOutput(ModelOutput):
    """As transformers' detectors have it: a query is a cell. pred_boxes: centre and sides as shares of the picture."""

    loss: Float[Tensor, ""] | None = None
    logits: Float[Tensor, "n q k"] | None = None
    pred_boxes: Float[Tensor, "n q 4"] | None = None


class TinyDetector(PreTrainedModel):
    """Strided convolutions down to a stride of 32, and up again to 4, with what was there on the way added."""

    config_class = TinyDetectorConfig
    main_input_name = "pixel_values"

    def __init__(self, config: TinyDetectorConfig) -> None:
        super().__init__(config)
        widths = config.channels
        self.down = nn.ModuleList(_block(a, b, 2) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        self.same = nn.ModuleList(_block(width, width, 1) for width in widths)
        self.up = nn.ModuleList(_block(b, a, 1) for a, b in pairwise(widths[1:]))
        wide = widths[1]
        self.head = _block(wide, 2 * wide, 1)
        self.classes = nn.Conv2d(2 * wide, config.num_labels, 1)
        self.sides = nn.Conv2d(2 * wide, 4, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        if module is self.classes:
            nn.init.normal_(module.weight, std=0.01)
            nn.init.constant_(module.bias, PRIOR)
        if module is self.sides:
            nn.init.normal_(module.weight, std=0.01)

    def forward(
        self, pixel_values: Float[Tensor, "n 3 h w"], labels: Sequence[Mapping[str, Tensor]] | None = None
    ) -> TinyDetectorOutput:
        """labels: ``class_labels`` and ``boxes`` of each picture, as transformers' detectors take them."""
        maps: list[Tensor] = []
        x = pixel_values
        for down, same in zip(self.down, self.same, strict=True):
            x = down(x)
            x = x + same(x)
            maps.append(x)
        for up, beside in zip(reversed(self.up), reversed(maps[1:-1]), strict=True):
            x = beside + F.interpolate(up(x), beside.shape[-2:], mode="nearest")
        x = self.head(x)
        logits, sides = self.classes(x), self.sides(x).clamp(-6, 6).exp()
        boxes = corners(sides)
        if labels is not None:
            return TinyDetectorOutput(loss_of(logits, boxes, labels), _by_cell(logits), _by_cell(_centred(boxes)))
        peaks = F.max_pool2d(logits, 3, stride=1, padding=1) == logits
        return TinyDetectorOutput(None, _by_cell(logits.where(peaks, NO_PEAK)), _by_cell(_centred(boxes)))


def _block(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def corners(sides: Float[Tensor, "n 4 h w"]) -> Float[Tensor, "n 4 h w"]:
    """Left, top, right and bottom as shares of the picture, of distances in cells from each cell's centre."""
    height, width = sides.shape[-2:]
    y, x = (torch.arange(count, device=sides.device, dtype=sides.dtype) + 0.5 for count in (height, width))
    left, top, right, bottom = sides.unbind(1)
    x, y = x[None, None, :], y[None, :, None]
    return torch.stack([(x - left) / width, (y - top) / height, (x + right) / width, (y + bottom) / height], 1)


def _centred(boxes: Float[Tensor, "n 4 h w"]) -> Float[Tensor, "n 4 h w"]:
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low], 1)


def _by_cell(maps: Float[Tensor, "n k h w"]) -> Float[Tensor, "n hw k"]:
    return maps.flatten(2).transpose(1, 2)


def peaks_of(boxes: Float[Tensor, "m 4"], height: int, width: int) -> Float[Tensor, "m height width"]:
    """exp(−(Δx²/2σx² + Δy²/2σy²)) about the cell of each box's centre. boxes: centre and sides as shares."""
    shape = boxes.new_tensor([width, height])
    centre, spread = (boxes[:, :2] * shape).floor(), (boxes[:, 2:] * shape * SPREAD).clamp(min=LEAST_SPREAD)
    x, y = (torch.arange(count, device=boxes.device, dtype=boxes.dtype) for count in (width, height))
    along = ((x[None] - centre[:, :1]) / spread[:, :1]) ** 2
    down = ((y[None] - centre[:, 1:]) / spread[:, 1:]) ** 2
    return torch.exp(-(along[:, None, :] + down[:, :, None]) / 2)


def loss_of(
    logits: Float[Tensor, "n k h w"], boxes: Float[Tensor, "n 4 h w"], labels: Sequence[Mapping[str, Tensor]]
) -> Float[Tensor, ""]:
    """The focal loss of peaks, by object, and ``BOX_WEIGHT`` times that of boxes.

    With p the probability and g the peaks' greatest value at a cell: −(1 − p)² ln p where g = 1, else
    −(1 − g)⁴ p² ln(1 − p). Boxes: 1 − GIoU, weighted about an object's centre as its peak is.
    """
    height, width = logits.shape[-2:]
    wanted = torch.zeros_like(logits)
    off = logits.new_zeros(())
    count = max(sum(len(one["boxes"]) for one in labels), 1)
    for image, one in enumerate(labels):
        peaks = peaks_of(one["boxes"], height, width)
        for peak, kind in zip(peaks, one["class_labels"].tolist(), strict=True):
            wanted[image, kind] = torch.maximum(wanted[image, kind], peak)
        weights = torch.where(peaks > 0.1, peaks, 0)
        there = torch.cat(
            [one["boxes"][:, :2] - one["boxes"][:, 2:] / 2, one["boxes"][:, :2] + one["boxes"][:, 2:] / 2], 1
        )
        away = 1 - giou(boxes[image][None], there[:, :, None, None])
        off = off + (away * weights / weights.sum((1, 2), keepdim=True)).sum()
    p = logits.sigmoid()
    hit = (1 - p) ** 2 * F.logsigmoid(logits)
    miss = (1 - wanted) ** 4 * p**2 * F.logsigmoid(-logits)
    return (-torch.where(wanted == 1, hit, miss).sum() + BOX_WEIGHT * off) / count


def giou(one: Float[Tensor, "a 4 h w"], other: Float[Tensor, "m 4 1 1"]) -> Float[Tensor, "m h w"]:
    """|A ∩ B| / |A ∪ B| − (|C| − |A ∪ B|) / |C| with C the box around both (Rezatofighi et al., CVPR 2019)."""
    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    around = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(1)
    both = (one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared
    return shared / both - (around - both) / around


AutoConfig.register(TinyDetectorConfig.model_type, TinyDetectorConfig)
AutoModelForObjectDetection.register(TinyDetectorConfig, TinyDetector)
