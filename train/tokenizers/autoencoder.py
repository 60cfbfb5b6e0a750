"""Autoencoders of diffusers: any of the classes in ``kinds``, from a folder with config.json and safetensors."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from clearfuse.synth.files.checkpoints import check_weights, read_state
from clearfuse.synth.types import UserError, reason_of
from clearfuse.train.tokenizers.base import Grid
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.weights.source import CONFIG, read_config

WEIGHTS = "diffusion_pytorch_model"
FILES = (CONFIG, f"{WEIGHTS}*.safetensors*")
"""The files of an autoencoder; the last matches an index too, where the weights are sharded."""

BIN = f"{WEIGHTS}.bin"
"""Weights as published before safetensors: a pickle, from which torch reads only tensors."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """An autoencoder class of diffusers. f: pixels along a side of a latent cell; frames: whether it takes videos, for
    which an image is a video of one frame; blocks: see ``FrozenTokenizer.recompute``.
    """

    cls: Any
    f: Callable[[Config], int]
    frames: bool = False
    blocks: tuple[type[nn.Module], ...] = ()


Channels = Annotated[int, Field(ge=1, le=1 << 16)]
Stages = Annotated[list[Channels], Field(min_length=1, max_length=16)]
Numbers = Annotated[list[float], Field(min_length=1, max_length=1 << 16)]


class AutoencoderConfig(BaseModel):
    """What ``config.json`` says of an autoencoder; what is missing, and its other fields, go by its class."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    kind: Annotated[str, Field(alias="_class_name")]
    in_channels: Channels = 3
    latent_channels: Channels = 4
    block_out_channels: Stages = [64]
    """Of these stages, and those below, all but one halve the size."""
    down_block_out_channels: Stages = [64]
    encoder_block_out_channels: Stages = [64]
    spatial_compression_ratio: Channels = 8
    scaling_factor: Annotated[float, Field(gt=0)] | None = None
    shift_factor: float | None = None
    latents_mean: Numbers | None = None
    latents_std: Numbers | None = None


def kinds() -> dict[str, Kind]:
    """The classes that can be loaded, by their name in config.json."""
    from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock

    def stages(key: str) -> Callable[[Config], int]:
        return lambda config: 2 ** (len(config[key]) - 1)

    allowed = (
        Kind(AutoencoderTiny, stages("encoder_block_out_channels"), blocks=(AutoencoderTinyBlock,)),
        Kind(AutoencoderKL, stages("block_out_channels")),
        Kind(AutoencoderKLFlux2, stages("block_out_channels")),
        Kind(AsymmetricAutoencoderKL, stages("down_block_out_channels"), blocks=(ResnetBlock2D,)),
        Kind(AutoencoderDC, stages("encoder_block_out_channels")),
        Kind(AutoencoderKLCosmos, lambda config: config["spatial_compression_ratio"], frames=True),
    )
    return {kind.cls.__name__: kind for kind in allowed}


def grid(folder: Path, where: str) -> Grid:
    """The grid of an autoencoder from its folder's config.json, and from its class's defaults for what is missing
    there.
    """
    kind, config = _read_config(folder, where)
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind.cls.__init__).parameters.items()}
    settings = {**defaults, **config}
    try:
        return Grid(int(kind.f(settings)), int(settings["latent_channels"]))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{where}: {folder / CONFIG}: {error}") from None


def load_autoencoder(folder: Path, where: str, legacy: bool = False) -> FrozenTokenizer:
    """Load the tokenizer of a folder with config.json and safetensors. where: prefix of a UserError.

    legacy: the weights are in ``BIN``. Weights must match the network exactly, none missing and none left over.
    """
    kind, _ = _read_config(folder, where)
    network = _weights(kind.cls, folder, where, legacy)
    if network.config.in_channels != 3:
        raise UserError(f"{where}: takes {network.config.in_channels} channels, not the 3 of a picture")
    return wrap(network, kind)


def config_of(folder: Path, where: str) -> Config:
    """A folder's config.json. Raises UserError, beginning with ``where``."""
    return _read_config(folder, where)[1]


def blank_autoencoder(config: Config) -> FrozenTokenizer:
    """The tokenizer of a config.json, with its weights as they are made."""
    kind = kinds()[config["_class_name"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wrap(kind.cls.from_config(dict(config)), kind)


def wrap(network: Any, kind: Kind) -> FrozenTokenizer:
    """Wrap a network of one of the ``kinds`` as a tokenizer."""
    shift, scale = sizes(network, network.config)

    def encode(images: Tensor) -> Tensor:
        output = network.encode(images[:, :, None] if kind.frames else images)
        raw = output.latent_dist.mode() if hasattr(output, "latent_dist") else _deterministic(output)
        return raw[:, :, 0] if kind.frames else raw

    def decode(raw: Tensor) -> Tensor:
        images = network.decode(raw[:, :, None] if kind.frames else raw).sample
        return images[:, :, 0] if kind.frames else images

    layout = torch.contiguous_format if kind.frames else torch.channels_last
    return FrozenTokenizer(
        [network], encode, decode, f=kind.f(network.config), shift=shift, scale=scale, layout=layout, blocks=kind.blocks
    )  # fmt: skip


def _deterministic(output: Any) -> Tensor:
    """The latents of a class without a posterior."""
    return output.latents if hasattr(output, "latents") else output.latent


def sizes(network: Any, config: Config) -> tuple[list[float], list[float]]:
    """(shift, scale) of each channel of the raw latents, from the config and the weights.

    Cosmos: ``latents_mean`` and ``latents_std`` of the first frame. FLUX.2: the running mean and variance of its batch
    norm, pooled over the four cells of a patch. Others: ``shift_factor`` and 1 / ``scaling_factor``.
    """
    z = config["latent_channels"]
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        step = len(mean) // z
        return [float(x) for x in mean[::step]], [float(x) for x in std[::step]]
    if isinstance(norm := getattr(network, "bn", None), torch.nn.BatchNorm2d):
        assert norm.running_mean is not None and norm.running_var is not None
        cells = norm.running_mean.view(z, -1)
        shift = cells.mean(1)
        variance = (norm.running_var.view(z, -1) + (cells - shift[:, None]).square()).mean(1)
        return shift.tolist(), variance.add(norm.eps).sqrt().tolist()
    shift, factor = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    return [float(shift)] * z, [1 / float(factor)] * z


def _read_config(folder: Path, where: str) -> tuple[Kind, Config]:
    table = kinds()
    config = read_config(AutoencoderConfig, folder, where)
    if config.kind not in table:
        raise UserError(f"{where}: {CONFIG} is of the class '{config.kind}'; allowed: {', '.join(sorted(table))}")
    return table[config.kind], config.model_dump(by_alias=True, exclude_unset=True)


def _weights(cls: Any, folder: Path, where: str, legacy: bool) -> Any:
    from pickle import UnpicklingError

    from diffusers.utils import logging
    from safetensors import SafetensorError

    for path in [folder / BIN] if legacy else sorted(folder.glob(f"{WEIGHTS}*.safetensors")):
        state = read_state(path)
        counters = {name: torch.int64 for name in state if name.endswith(".num_batches_tracked")}
        check_weights(state, path, counters)
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # the error below has it in one line
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network, report = cls.from_pretrained(
                str(folder), use_safetensors=not legacy, local_files_only=True, torch_dtype=torch.float32,
                output_loading_info=True, low_cpu_mem_usage=False,  # True needs accelerate, and saves nothing here
            )  # fmt: skip
    except (
        OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, SafetensorError, UnpicklingError
    ) as error:  # fmt: skip
        raise UserError(f"{where}: {cls.__name__} can't be loaded from {folder}: {reason_of(error)}") from None
    finally:
        logging.set_verbosity(level)
    _check_complete(report, where, folder)
    return network


def _check_complete(report: Mapping[str, Sequence[Any]], where: str, folder: Path) -> None:
    kinds = {"missing_keys": "missing", "unexpected_keys": "too many", "mismatched_keys": "of another shape"}
    faults = [f"{len(report[k])} {kind}, such as {next(iter(report[k]))}" for k, kind in kinds.items() if report[k]]
    if faults:
        raise UserError(f"{where}: the weights in {folder} do not fit its {CONFIG}: {'; '.join(faults)}")
