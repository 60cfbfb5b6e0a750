"""The loss of a batch."""

from __future__ import annotations

import pytest
import torch

from clearfuse.train.data.batch import Batch
from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.models.restorer import RestorerConfig
from clearfuse.train.objectives.pixels import PIXEL_LOSSES
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.training.loss import batch_loss


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixel_losses_are_computed_in_fp32_whatever_the_network_is(name: str) -> None:
    """On smooth bright pictures, whose variance is lost between two squares of 8 bits of precision each."""
    objective = Regression(balance=0.0, pixel=1.0, pixels={name: 1.0})
    config = RestorerConfig(width=8, channels=(4, 4, 4), blocks=(1, 1, 1), heads=2, depth=1, experts=0, lora=4)
    assembly = Assembly(Design("restorer", config, "pixels", "bytes", objective, "pyramid"), torch.Generator())
    ramp = torch.linspace(236, 252, 256)[None, None, None].expand(1, 3, 192, 256)
    images = {one: (ramp - i).to(torch.uint8) for i, one in enumerate(("a", "b", "gt", "guess", "clean_a", "clean_b"))}
    batch = Batch(images, ["fuse"], ["0"], [0], ["vif"], [()])
    exact, found = (
        batch_loss(assembly, batch, torch.Generator(), torch.device("cpu"), bf16=bf16) for bf16 in (False, True)
    )
    assert found.terms["pixel"].dtype == torch.float32
    torch.testing.assert_close(found.terms["pixel"], exact.terms["pixel"], rtol=0.02, atol=1e-3)
