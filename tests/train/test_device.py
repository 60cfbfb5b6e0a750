"""The device to compute on."""

from __future__ import annotations

import pytest
import torch

from clearfuse.synth.types import UserError
from clearfuse.train.device import find_device


def test_a_device_by_name_or_the_machines_own() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name}: .") as told:
        find_device(name)
    assert "\n" not in str(told.value)
