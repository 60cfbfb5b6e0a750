"""Files of tensors: safetensors alone, there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clearfuse.synth.types import UserError, WorkIncomplete, reason_of


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file that is there whole or not at all, of the same bytes for the same content.

    Raises WorkIncomplete where it can't be written.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    held = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors makes files that nobody else may read
        save_file(held, temporary, dict(metadata))
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            _sort_metadata(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise WorkIncomplete(f"{path}: can't be written: {reason_of(error)}; what was there before is whole") from None
    finally:
        temporary.unlink(missing_ok=True)


def _sort_metadata(file: BinaryIO) -> None:
    """Put the header's metadata in the order of their names: safetensors writes them in a random one.

    Source of the layout: the header's length as 8 bytes, little-endian, then a JSON object, padded with spaces.
    """
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    assert len(text) == length, "the same header in another order has the same length"
    file.seek(8)
    file.write(text)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises UserError where it is none."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is no whole safetensors file: {reason_of(error)}") from None
