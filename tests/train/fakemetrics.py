"""Every metric on a GPU that is not there, see ``pretend``: devices and types are checked, values are not computed.

Run as a script: a line for each metric, and a traceback for the first that fails.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH, which a command sets, leaves it out

from metricmodels import made_models
from pretend import pretend_cuda
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from clearfuse.train.evaluation import measure
from clearfuse.train.metrics import METRICS, evaluate, tensors

SIDE = 192
PYIQA = "LPIPS", "RAIM", "MUSIQ", "CLIPIQA"


def within(images: list[Tensor]) -> list[tuple[float, float]]:
    """Stands for the ranges, which are read on the host."""
    return [(0.0, 1.0)] * len(images)


def main() -> None:
    pretend_cuda()
    tensors.evaluate._ranges = within
    with tempfile.TemporaryDirectory() as folder, FakeTensorMode():
        made_models(Path(folder))
        for dtype in (torch.uint8, torch.bfloat16):
            images = [torch.empty(2, c, SIDE, SIDE + 3, dtype=dtype, device="cuda") for c in (3, 3, 1, 3)]
            for name in (name for name in METRICS if name not in PYIQA):
                with torch.autocast("cuda", torch.bfloat16):
                    value = evaluate(*images, [name])[name]
                assert value.shape == (2,) and value.device.type == "cuda" and value.dtype == torch.float32, name
        measure._read = lambda values: [[0.0] * values.shape[1]] * len(values)
        arrays = [np.zeros((SIDE, SIDE + 3, c), np.uint8) for c in (3, 1, 3, 1, 3)]
        names = [name for name in METRICS if name not in PYIQA]
        fused = {"colour": arrays[0], "grey": arrays[1]}
        assert [*measure.measure(fused, *arrays[2:], names, device="cuda")] == ["colour", "grey"]
        print(*(name for name in METRICS if name not in PYIQA))


if __name__ == "__main__":
    main()
