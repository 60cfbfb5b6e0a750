"""Weights that can't be a network's are refused in one line that names the file and the entry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clearfuse.synth.files.checkpoints import check_weights, fill
from clearfuse.synth.types import UserError

FILE = Path("x.safetensors")
NAN, INF = float("nan"), float("inf")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


BAD = {
    "nan": torch.tensor([1.0, NAN]),
    "infinite": torch.tensor([INF, 1.0]),
    "minus infinite": torch.tensor([1.0, -INF]),
    "overflowed fp16": torch.tensor([7e4, 1.0]).half(),
    "beyond float32": torch.tensor([1e300, 1.0], dtype=torch.float64),
    "integers": torch.tensor([1, 2]),
    "bool": torch.tensor([True, False]),
    "complex": torch.tensor([1j, 0]),
    "float8": torch.ones(2).to(torch.float8_e4m3fn),
    "sparse": torch.ones(2).to_sparse(),
    "of no numbers": torch.ones(2, device="meta"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_weights_are_refused_wherever_they_are(name: str) -> None:
    for entry in ("0.bias", "1.running_var"):
        with pytest.raises(UserError) as caught:
            fill(network(), {**network().state_dict(), entry: BAD[name]}, FILE, "a network")
        assert str(caught.value).startswith(f"{FILE}: {entry} ")
        assert "\n" not in str(caught.value)


def test_a_counter_must_be_an_integer() -> None:
    with pytest.raises(UserError, match=r"1\.num_batches_tracked is of type float32; must be int64"):
        fill(network(), {**network().state_dict(), "1.num_batches_tracked": torch.tensor(0.5)}, FILE, "a network")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_is_taken(dtype: torch.dtype) -> None:
    state: dict[str, Tensor] = {"w": torch.ones(3, dtype=dtype), "none": torch.zeros(0, dtype=dtype)}
    check_weights(state, FILE)
    state["w"][1] = INF
    with pytest.raises(UserError, match="w "):
        check_weights(state, FILE)


def test_what_overflows_when_it_is_loaded_is_refused() -> None:
    with pytest.raises(UserError, match="w holds a number that is infinite as bfloat16"):
        check_weights({"w": torch.tensor([torch.finfo(torch.float32).max])}, FILE, {"w": torch.bfloat16})
