"""Start a run from the weights of another model: ``train fit --init``."""

from __future__ import annotations

from pathlib import Path

from clearfuse.synth.files.checkpoints import check_weights, digest
from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly, Design, read_design
from clearfuse.train.pipeline.fusion import DESIGN, FILES, WEIGHTS
from clearfuse.train.pipeline.shipped import folder_of
from clearfuse.train.weights import hub
from clearfuse.train.weights.tensors import read_tensors


def find_initial(name: str) -> Path:
    """The folder of a model to start from: a run's, a shipped one's, or one of the hub, which is fetched.

    Raises UserError, one line, where there is no such model.
    """
    folder = folder_of(name)
    if not folder.exists():
        folder = hub.pull(name, None, FILES)
    for file in (DESIGN, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(f"--init {name}: no model here: {file} is missing")
    return folder


def design_of(name: str) -> Design:
    """The design of a model to start from."""
    folder = find_initial(name)
    return read_design((folder / DESIGN).read_bytes(), str(folder / DESIGN)).design()


def identity_of(name: str) -> str:
    """Which weights they are, for the record of a run: the name and the file's digest."""
    return f"{name} {digest(find_initial(name) / WEIGHTS)}"


def start_from(assembly: Assembly, name: str) -> str:
    """Take the weights of a model that have the name and the shape of the assembly's; what was done, in one line.

    Raises UserError where none fits, or one of them is not finite.
    """
    path = find_initial(name) / WEIGHTS
    state, (given, _) = assembly.state_dict(), read_tensors(path)
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


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
