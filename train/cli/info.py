"""``train info``."""

from __future__ import annotations

import json
from typing import Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.train.cli.options import InfoOptions

GIB = 2**30


@takes(InfoOptions)
def info_command(json_: JsonOption = False, **options: Any) -> None:
    """Say what a preset is and costs: parameters in total and active, latents, FLOPs, memory of fusing and training."""
    from clearfuse.train.designs.presets import describe, parse_size
    from clearfuse.train.runs.settings import Settings

    chosen = check_options(InfoOptions, options)
    changed = {name: getattr(chosen, name) for name in ("batch", "crop", "precision")}
    settings = Settings.of(chosen.preset, sets=[*chosen.sets, *chosen.changes], **changed)
    info = describe(chosen.preset, parse_size(chosen.size), settings.design(), settings.adapts)
    info["attention"] = kernels(chosen.attention, chosen.device)
    console.note("counting a training step")
    info |= training_costs(settings, chosen.device)
    if info["base"] != "none":
        info["adapters"] = adapter_costs(settings, chosen.device)
    typer.echo(json.dumps(info, ensure_ascii=False) if json_ else to_text(info))


def kernels(asked: str, device: str) -> dict[str, str]:
    """The attention kernels of training, whose prompts are padded, and of fusing one pair, whose prompt is not."""
    import torch

    from clearfuse.train.models.attention import choose_kernel, find_kernel

    kernel, where = find_kernel(asked), torch.device(device)
    return {"training": choose_kernel(kernel, where, True), "fusing": choose_kernel(kernel, where, False)}


def training_costs(settings: Any, device: str) -> dict[str, Any]:
    """The memory of training in bytes: ``memory_training`` is the most at once, ``training`` has its parts."""
    import dataclasses

    import torch

    from clearfuse.train.data.buckets import parse_ratios, shape_of
    from clearfuse.train.training.memory import training_memory

    shapes = [shape_of(ratio, settings.crop) for ratio in parse_ratios(settings.ratios)]
    size = max(shapes, key=lambda shape: shape[0] * shape[1])
    bf16, design = settings.bf16(torch.device(device)), settings.design()
    counted = training_memory(
        design, batch=settings.batch, size=size, recompute=settings.recompute, accumulate=settings.accumulate,
        cuda=device == "cuda", bf16=bf16, adapt=settings.adapts,
    )  # fmt: skip
    given = {
        "device": device, "precision": "bf16" if bf16 else "fp32", "batch": settings.batch,
        "accumulate": settings.accumulate, "size": f"{size[0]}x{size[1]}", "recompute": settings.recompute,
        "pixel": design.objective.pixel > 0,
    }  # fmt: skip
    parts = dataclasses.asdict(counted) | {"activations": counted.activations}
    return {"memory_training": counted.peak, "training": given | parts}


def adapter_costs(settings: Any, device: str) -> list[dict[str, Any]]:
    """The memory of training adapters in bytes, on one square picture a batch, with the base in 16 bits and in 4."""
    import dataclasses

    import torch

    from clearfuse.train.models.omnigen.config import spared
    from clearfuse.train.training.memory import training_memory

    bf16, design = settings.bf16(torch.device(device)), settings.design()
    of = dataclasses.replace(design, config=dataclasses.replace(design.config, bits=16))
    rows: list[dict[str, Any]] = []
    for side in (512, 1024):
        counted = training_memory(
            of, batch=1, size=(side, side), recompute=settings.recompute, cuda=device == "cuda", bf16=bf16,
            adapt=settings.adapts,
        )  # fmt: skip
        for name, less in (("LoRA", 0), ("QLoRA", spared(of.config))):
            rows.append({"adapters": name, "size": f"{side}x{side}", "memory_training": counted.peak - less})
    return rows


def to_text(info: dict[str, Any]) -> str:
    """The lines that ``train info`` prints."""
    given = info["training"]
    how = [f"{given['batch']} crops of {given['size']}", given["precision"]]
    how += ["recomputed"] if given["recompute"] else []
    how += ["pixel loss"] if given["pixel"] else []
    parts = [
        (given["weights"] + given["ema"], "weights and EMA"),
        (given["optimizer"], "optimizer"),
        (given["gradients"], "gradients"),
        (given["frozen"], "tokenizer and prompt encoder" if info["base"] == "none" else "tokenizer and base"),
        (given["activations"], "activations"),
    ]
    kernel, told = info["attention"], "" if info["semantics"] == "none" else f", semantics {info['semantics']}"
    rows = [
        ("preset", f"{info['preset']}: {info['about']}"),
        ("model", f"{info['model']}, tokenizer {info['tokenizer']}, prompts {info['text']}{told}"),
        ("latents", f"{' × '.join(map(str, info['latents']))} at {info['size']}, f = {info['f']}"),
        ("parameters", f"{info['parameters_total'] / 1e6:.2f} M, active {info['parameters_active'] / 1e6:.2f} M"),
        ("flops", f"{info['flops'] / 1e12:.3g} T a call at {info['size']}, {info['calls']} a picture (network alone)"),
        ("memory", f"{info['memory_inference'] / GIB:.2f} GiB to run in bf16 (network alone)"),
        ("", f"{info['memory_training'] / GIB:.2f} GiB to train on {given['device']}: {', '.join(how)}"),
        ("", f"  {', '.join(f'{size / GIB:.2f} {what}' for size, what in parts)};"),
        ("", f"  {given['update'] / GIB:.2f} in the optimizer's step"),
        *_adapters(info.get("adapters", [])),
        ("attention", f"{kernel['training']} in training, {kernel['fusing']} for one pair"),
    ]
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def _adapters(counted: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """A line for each kind of adapters, with each size."""
    kinds = dict.fromkeys(row["adapters"] for row in counted)
    return [
        ("", f"{kind}, a picture a batch: " + ", ".join(
            f"{row['memory_training'] / GIB:.2f} GiB at {row['size']}" for row in counted if row["adapters"] == kind
        )) for kind in kinds
    ]  # fmt: skip
