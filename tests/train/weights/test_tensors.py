"""Files of tensors: the same content is the same bytes."""

from __future__ import annotations

from pathlib import Path

import torch

from clearfuse.train.weights.tensors import read_tensors, write_tensors

METADATA = {"step": "4", "format": "pt", "prompt": 'say "雾",\n\t\x01\x7f é', "empty": ""}


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    tensors = {f"{name}.weight": torch.full((n,), float(n)) for n, name in enumerate("cabd")}
    tensors["half"], tensors["count"] = torch.ones(3).half(), torch.tensor(5)
    made: set[bytes] = set()
    for number in range(20):
        order = reversed if number % 2 else list
        path = tmp_path / f"{number}.safetensors"
        write_tensors(path, dict(order(tensors.items())), dict(order(METADATA.items())))
        made.add(path.read_bytes())
    assert len(made) == 1
    back, metadata = read_tensors(path)
    assert metadata == METADATA
    assert all(torch.equal(back[name], tensors[name]) for name in tensors) and back.keys() == tensors.keys()
