"""A node of ComfyUI that fuses two pictures with ClearFuse: copy this folder to ``ComfyUI/custom_nodes/clearfuse``.

ComfyUI's Python needs ClearFuse (``pip install clearfuse``); ComfyUI itself is not imported here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

CATEGORY = "image/fusion"
TASKS = ("auto", "vif", "mef", "mff")
TOOLTIP = "empty: what is wrong is estimated and removed; fuse: just fuse the two"


class ClearFuseNode:
    """Fuse two pictures of one scene and undo what degraded them.

    Images are ComfyUI's: float ``(batch, h, w, 3)`` in [0, 1]. a: visible, under-exposed or near focus; b: infrared,
    over-exposed or far focus. Raises ValueError, which ComfyUI shows at the node, where they are no pair.
    """

    CATEGORY = CATEGORY
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("fused",)
    FUNCTION = "fuse"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        """The inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "a": ("IMAGE", {"tooltip": "visible, dark exposure or near focus"}),
                "b": ("IMAGE", {"tooltip": "infrared, bright exposure or far focus"}),
                "task": (list(TASKS), {"default": "auto"}),
            },
            "optional": {
                "prompt": ("STRING", {"default": "", "multiline": True, "tooltip": TOOLTIP}),
                "model": ("STRING", {"default": "clearfuse-small", "tooltip": "a folder, a hub id or a shipped model"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**53 - 1, "tooltip": "of a flow model's noise"}),
                "strength": (
                    "FLOAT",
                    {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": "how much of it is removed"},
                ),
            },
        }

    def fuse(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        task: str = "auto",
        prompt: str = "",
        model: str = "clearfuse-small",
        seed: int = 0,
        strength: float = 1.0,
    ) -> tuple[torch.Tensor]:
        """Fuse a batch pair by pair; a single picture goes with each of the other batch. Returns (fused,)."""
        from clearfuse.synth.types import UserError, WorkIncomplete

        if a.shape[1:3] != b.shape[1:3]:
            sizes = " and ".join(f"{x.shape[2]}x{x.shape[1]}" for x in (a, b))
            raise ValueError(f"the two images differ in size: {sizes}")
        count = max(len(a), len(b))
        if {len(a), len(b)} - {1, count}:
            raise ValueError(f"batches of {len(a)} and {len(b)} images: must be equal, or one of them 1")
        try:
            pipeline = _load(model)
            fused = [
                _fuse_pair(pipeline, a[i % len(a)], b[i % len(b)], task, prompt.strip() or None, seed, strength)
                for i in range(count)
            ]
        except (UserError, WorkIncomplete) as error:
            raise ValueError(str(error)) from None
        return (torch.stack(fused),)


@lru_cache(maxsize=2)
def _load(model: str) -> Any:
    from clearfuse.train.pipeline.files import load_pipeline

    return load_pipeline(model)


def _fuse_pair(
    pipeline: Any, a: torch.Tensor, b: torch.Tensor, task: str, prompt: str | None, seed: int, strength: float
) -> torch.Tensor:
    from clearfuse.synth.datasets.read import as_grey
    from clearfuse.train.pipeline.task import find_task

    x, y = (((image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8)).cpu().numpy() for image in (a, b))
    if task == "auto":
        found = find_task(x, y)
        task = found.task
        x, y = (y, x) if found.swapped else (x, y)
    fused = pipeline(x, as_grey(y) if task == "vif" else y, task=task, prompt=prompt, seed=seed, strength=strength)
    return torch.from_numpy(fused).float() / 255


NODE_CLASS_MAPPINGS = {"ClearFuse": ClearFuseNode}
NODE_DISPLAY_NAME_MAPPINGS = {"ClearFuse": "ClearFuse: fuse two images"}
