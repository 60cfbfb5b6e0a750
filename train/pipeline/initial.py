"""What a run starts from, and what of it learns: ``train fit --init``, ``--lora`` and ``--freeze``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from clearfuse.synth.console import plural
from clearfuse.synth.files.checkpoints import check_weights, digest
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.types import UserError, reason_of
from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.designs.file import read_design
from clearfuse.train.designs.folder import DESIGN, FILES, WEIGHTS
from clearfuse.train.models import lora
from clearfuse.train.pipeline import adapters
from clearfuse.train.pipeline.shipped import folder_of
from clearfuse.train.runs.settings import Settings
from clearfuse.train.weights import hub
from clearfuse.train.weights.source import CONFIG
from clearfuse.train.weights.tensors import read_tensors


def find_initial(name: str) -> Path:
    """The folder of a model to start from: a run's, a shipped one's, one of the hub, which is fetched, or of encoders.

    Raises UserError, one line, where there is no such model.
    """
    folder = folder_of(name)
    if not folder.exists():
        folder = hub.pull(adapters.PUBLISHED.get(name, name), None, (*FILES, *adapters.FILES))
    if not (folder / DESIGN).is_file() and (found := adapters.adapters_in(folder)) is not None:
        return found
    for file in (WEIGHTS,) if _is_segformer(folder) else (DESIGN, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(f"--init {name}: no model here: {file} is missing")
    return folder


def design_of(name: str) -> Design:
    """The design of a model to start from."""
    folder = find_initial(name)
    if (folder / adapters.CONFIG).is_file():
        return adapters.design_of_adapters(folder)
    return read_design(read_small(folder / DESIGN), str(folder / DESIGN)).design()


def identity_of(name: str) -> str:
    """Which weights they are, for the record of a run: the name and the file's digest."""
    return f"{name} {digest(_weights_in(find_initial(name)))}"


def _weights_in(folder: Path) -> Path:
    return folder / (adapters.WEIGHTS if (folder / adapters.CONFIG).is_file() else WEIGHTS)


def start_from(assembly: Assembly, name: str) -> str:
    """Take the weights of a model that have the name and the shape of the assembly's; what was done, in one line.

    Raises UserError where none fits, or one of them is not finite.
    """
    path = _weights_in(find_initial(name))
    state = assembly.state_dict()
    if path.name == adapters.WEIGHTS:
        given = adapters.read_adapters(path.parent, assembly.design.config)
    else:
        given = _encoders(path.parent, name) if _is_segformer(path.parent) else read_tensors(path)[0]
    fitting = {key: tensor for key, tensor in given.items() if key in state and tensor.shape == state[key].shape}
    if not fitting:
        raise UserError(f"--init {name}: none of its {len(given)} tensors has the name and the shape of this preset's")
    check_weights(fitting, path, {key: state[key].dtype for key in fitting})
    assembly.load_state_dict(fitting, strict=False)
    new, unused = [key for key in state if key not in fitting], [key for key in given if key not in fitting]
    parts = [f"{len(fitting)} of {len(state)} tensors are those of {name}"]
    parts += [f"new: {_some(new)}"] if new else []
    parts += [f"not used: {_some(unused)}"] if unused else []
    return "; ".join(parts)


def limit_learning(assembly: Assembly, settings: Settings, rng: torch.Generator) -> str | None:
    """Freeze what the settings say; what then learns, in one line, None where all does. Raises UserError, one line."""
    based = assembly.found.base.folder is not None
    if settings.lora is None and not settings.freeze and not based:
        return None
    layers = 0
    if settings.lora is not None:
        if based:
            rank = f"--set config.rank={settings.lora}"
            raise UserError(f"--lora {settings.lora}: this preset trains LoRA already; its rank is {rank}")
        if settings.init is None:
            raise UserError(f"--lora {settings.lora}: adapts a model that is there: name it by --init")
        assembly.text.requires_grad_(False)
        layers = lora.adapt(assembly.network, settings.lora, rng)
        if not layers:
            raise UserError(f"--lora {settings.lora}: no linear layer of the network is wider than that")
    _freeze(assembly, settings.freeze)
    learns, total = (sum(p.numel() for p in some) for some in (assembly.trained().values(), assembly.parameters()))
    if not learns:
        why = f"--freeze {' '.join(settings.freeze)}" if settings.freeze else "config.rank 0"
        raise UserError(f"{why}: leaves nothing to learn")
    how = f"LoRA of rank {settings.lora} on {plural(layers, 'layer')}: " if layers else ""
    how = f"LoRA of rank {assembly.design.config.rank} on a base that stays: " if based else how
    return f"{how}{learns:,} of {total:,} weights learn"


def _freeze(assembly: Assembly, patterns: Sequence[str]) -> None:
    names = dict(assembly.named_parameters())
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            parts = ", ".join(sorted({".".join(name.split(".")[:2]) + ".*" for name in names}))
            raise UserError(f"--freeze {pattern}: no weight has such a name; there are {parts}")
        for name in found:
            names[name].requires_grad_(False)


def _is_segformer(folder: Path) -> bool:
    """Whether a folder is one of transformers' with a SegFormer, from whose encoder a pair of encoders starts."""
    try:
        return json.loads(read_small(folder / CONFIG)).get("model_type") == "segformer"
    except (UserError, ValueError, AttributeError, RecursionError):
        return False


def _encoders(folder: Path, name: str) -> dict[str, Tensor]:
    """A SegFormer's encoder under the names of MdaIF's two. Raises UserError where it can't be read."""
    from transformers.models.segformer.modeling_segformer import SegformerModel

    try:
        encoder = SegformerModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # transformers and safetensors raise exceptions of various types
        raise UserError(f"--init {name}: can't be loaded: {reason_of(error)}") from None
    return {f"network.encoders.{i}.{key}": tensor for key, tensor in encoder.state_dict().items() for i in range(2)}


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
