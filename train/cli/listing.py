"""``train list``: what there is to choose from, a line each: the tables of the package, described by themselves."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption, PluginOption
from clearfuse.synth.console import plural
from clearfuse.synth.types import UserError, check_name


def _presets() -> dict[str, str]:
    from clearfuse.train.designs.presets import PRESETS, describe

    def costs(name: str) -> str:
        info = describe(name)
        calls = f" × {info['calls']}" if info["calls"] > 1 else ""
        flops, memory = info["flops"] / 1e12, info["memory_inference"] / 2**30
        return f"{info['parameters_total'] / 1e6:.0f} M; at {info['size']} {flops:.2g} TFLOP{calls}, {memory:.2g} GiB"

    return {name: f"{preset.about} ({costs(name)})" for name, preset in PRESETS.items()}


def _shipped() -> dict[str, str]:
    from clearfuse.train.pipeline.shipped import SHIPPED

    return dict(SHIPPED)


def _families() -> dict[str, str]:
    from clearfuse.train.models import MODELS

    return {name: _first_line(inspect.getmodule(family.config)) for name, family in MODELS.items()}


def _objectives() -> dict[str, str]:
    from clearfuse.train.objectives import OBJECTIVES

    return {name: _first_line(objective) for name, objective in OBJECTIVES.items()}


def _pixel_losses() -> dict[str, str]:
    from clearfuse.train.objectives.pixels import PIXEL_LOSSES

    return {name: _first_line(loss) for name, loss in PIXEL_LOSSES.items()}


def _samplers() -> dict[str, str]:
    from clearfuse.train.objectives.samplers import SAMPLERS, Sampler

    def text(one: Sampler) -> str:
        return f"{one.about}; of a {one.path}, {plural(one.calls, 'call')} a step{', stochastic' * one.stochastic}"

    return {name: text(one) for name, one in SAMPLERS.items()}


def _tokenizers() -> dict[str, str]:
    from clearfuse.train.tokenizers import GRIDS, OWN, PUBLISHED

    def source(name: str) -> str:
        if name in OWN:
            return "needs no weights"
        return f"{PUBLISHED[name].repo}, {PUBLISHED[name].licence or 'see its page for the licence'}"

    return {name: f"f = {grid.f}, {grid.z} channels; {source(name)}" for name, grid in GRIDS.items()}


def _prompt_encoders() -> dict[str, str]:
    from clearfuse.train.text import OWN
    from clearfuse.train.text.t5 import PUBLISHED

    own = {"bytes": "hashed n-grams of bytes, trained with the model", "none": "no prompt"}
    assert own.keys() == set(OWN)
    return own | {name: f"frozen; {one.repo}, {one.licence}" for name, one in PUBLISHED.items()}


def _metrics() -> dict[str, str]:
    from clearfuse.train.metrics import METRICS

    return {
        name: f"{metric.kind}, {metric.direction} is better: {metric.doc}"
        + ", differentiable" * metric.differentiable
        + (f" ({reason})" if (reason := metric.missing()) else "")
        for name, metric in METRICS.items()
    }


def _profiles() -> dict[str, str]:
    from clearfuse.train.metrics import PROFILES

    return {name: f"{profile.doc}: {', '.join(profile.metrics)}" for name, profile in PROFILES.items()}


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "presets": _presets,
    "models": _shipped,
    "families": _families,
    "objectives": _objectives,
    "pixel-losses": _pixel_losses,
    "samplers": _samplers,
    "tokenizers": _tokenizers,
    "prompt-encoders": _prompt_encoders,
    "metrics": _metrics,
    "profiles": _profiles,
}


def list_command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{', '.join([*KINDS][:-1])} or {[*KINDS][-1]}.")],
    json_: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006  (typer copies it)
    time: Annotated[
        bool, typer.Option("--time", help="presets: say about how long fusing and a training step take here.")
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="Of --time: cpu or cuda; CUDA where there is one.")
    ] = None,
) -> None:
    """List what there is to choose from, with what each costs or needs; models: those that ship."""
    check_name("kind", kind, KINDS)
    if (time or device is not None) and (kind != "presets" or not time):
        raise UserError("--device: goes with --time" if not time else f"--time: is of presets, not of {kind}")
    entries = KINDS[kind]()
    if time:
        from clearfuse.train.cli.speed import measure_speed

        speed = measure_speed(device)
        console.note(speed.line())
        entries = {name: f"{text}; {speed.times(name)}" for name, text in entries.items()}
    width = max(map(len, entries))
    lines = "\n".join(f"{name:<{width}}  {text}" for name, text in entries.items())
    typer.echo(json.dumps(entries, ensure_ascii=False) if json_ else lines)
