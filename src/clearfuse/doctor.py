"""``clearfuse doctor``: what this machine has for ClearFuse, what it lacks, and what to do about each."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

LEAST_DISK = 5 << 30
"""Bytes free below which a folder is called short: a small build and a run fit in as much."""
HUB = "https://huggingface.co"
SECONDS = 5.0
"""To wait for the hub."""
TERMS = {"iqa": " (pyiqa: for non-commercial use)"}
"""What an extra's licence forbids."""
USED = (
    "torch",
    "numpy",
    "opencv-python-headless",
    "numba",
    "albumentations",
    "transformers",
    "diffusers",
    "webdataset",
)


@dataclass(frozen=True)
class Finding:
    """One line. state: ok; absent, of what is optional; wrong, of what ClearFuse does not work without."""

    about: str
    state: Literal["ok", "absent", "wrong"]
    text: str
    advice: str = ""


def examine(network: bool = True) -> Iterator[Finding]:
    """All findings, in the order of the report. network: ask the hub too."""
    yield from _versions()
    yield from _machine()
    yield from _extras()
    yield from _weights()
    if network:
        yield _hub()
    yield from _disks()


def _versions() -> Iterator[Finding]:
    from clearfuse.synth.version import __version__

    yield Finding("clearfuse", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    found = {name: _version(name) for name in USED}
    yield Finding("packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items() if version))
    if lacking := [name for name, version in found.items() if version is None]:
        yield Finding("packages", "wrong", f"{', '.join(lacking)} missing", "pip install clearfuse again")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Finding]:
    from clearfuse.synth.console import format_bytes
    from clearfuse.train.models.attention import choose_kernel, find_kernel

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("processor", "ok", f"{cores} cores, {_memory()}")
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        advice = (
            "look for a driver with nvidia-smi" if built else "on a machine with a GPU: pip install torch with CUDA"
        )
        yield Finding("gpu", "absent", "no CUDA device: small models fit and fuse on the CPU", advice)
        return
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding("gpu", "ok", f"cuda:{number}, {found.name}, {format_bytes(found.total_memory)}, {bf16}")
    masked = [choose_kernel(find_kernel("auto"), torch.device("cuda"), mask) for mask in (True, False)]
    yield Finding("attention", "ok", f"{masked[0]} in training, {masked[1]} for one pair")


def _memory() -> str:
    from clearfuse.synth.console import format_bytes

    try:
        return format_bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows
        return "memory unknown"


def _extras() -> Iterator[Finding]:
    """The optional requirements, as the installed package declares them."""
    from packaging.requirements import Requirement

    needs: dict[str, list[str]] = {}
    for text in metadata.requires("clearfuse") or ():
        need = Requirement(text)
        for extra in metadata.metadata("clearfuse").get_all("Provides-Extra") or ():
            if need.marker and need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""}):
                needs.setdefault(extra, []).append(need.name)
    for extra, names in needs.items():
        if extra in ("dev", "docs"):
            continue
        lacking = [name for name in names if _version(name) is None]
        advice = f"pip install 'clearfuse[{extra}]'{TERMS.get(extra, '')}" if lacking else ""
        text = f"{', '.join(lacking)} not installed" if lacking else ", ".join(names)
        yield Finding(f"extra {extra}", "absent" if lacking else "ok", text, advice)


def _weights() -> Iterator[Finding]:
    from clearfuse.synth.depth import anything
    from clearfuse.synth.fusers.weights import WEIGHTS, find_weights, how_to_get
    from clearfuse.synth.types import UserError
    from clearfuse.train.metrics import METRICS
    from clearfuse.train.pipeline.shipped import SHIPPED, shipped_folder

    for name in SHIPPED:
        try:
            yield Finding("model", "ok", f"{name}: {shipped_folder(name)}")
        except UserError as error:
            yield Finding("model", "wrong", str(error))
    for name in WEIGHTS:
        path = find_weights(name)
        yield Finding(
            f"fuser {name}",
            "absent" if path is None else "ok",
            str(path or "no weights"),
            "" if path else how_to_get(name),
        )
    depth = anything.on_disk()
    advice = "" if depth else "--depth depth-anything fetches it once, 99 MB; --depth auto takes the small network"
    yield Finding("depth-anything", "ok" if depth else "absent", str(depth or "no weights"), advice)
    if lacking := {metric.name: metric.missing() for metric in METRICS.values() if metric.missing()}:
        for reason in dict.fromkeys(lacking.values()):
            names = ", ".join(name for name, why in lacking.items() if why == reason)
            yield Finding("metrics", "absent", names, reason)


def _hub() -> Finding:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    address = os.environ.get("HF_ENDPOINT", HUB)
    if os.environ.get("HF_HUB_OFFLINE"):
        return Finding("hub", "absent", "HF_HUB_OFFLINE is set", "unset it to load models by hub id")
    try:
        urlopen(Request(address, method="HEAD"), timeout=SECONDS).close()
    except HTTPError:
        pass  # it answers
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        advice = "models and weights by folder work; HF_ENDPOINT names a mirror"
        return Finding("hub", "absent", f"{address}: {reason}", advice)
    return Finding("hub", "ok", address)


def _disks() -> Iterator[Finding]:
    from clearfuse.synth.console import format_bytes
    from clearfuse.synth.files.cache import cache_folder

    cache = cache_folder()
    for name, place in (("disk", Path.cwd()), ("cache", cache)):
        if not isinstance(place, Path):
            yield Finding(name, "ok", str(place))
            continue
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
        text = f"{place}: {format_bytes(free)} free"
        if not writable:
            yield Finding(name, "wrong", f"{place}: cannot be written to", _elsewhere(name))
        else:
            short = free < LEAST_DISK
            yield Finding(name, "absent" if short else "ok", text, _elsewhere(name) if short else "")


def _elsewhere(name: str) -> str:
    return "CLEARFUSE_CACHE names another folder" if name == "cache" else "work in another folder"


def to_text(findings: list[Finding]) -> str:
    """The report for a terminal."""
    width = max(len(one.about) for one in findings)
    marks = {"ok": "  ", "absent": "- ", "wrong": "! "}
    lines = [
        f"{marks[one.state]}{one.about:<{width}}  {one.text}{f'; {one.advice}' if one.advice else ''}"
        for one in findings
    ]
    wrong = sum(one.state == "wrong" for one in findings)
    return "\n".join([*lines, "", f"{wrong} to mend (!)" if wrong else "nothing to mend; - is optional"])


def main(arguments: list[str]) -> int:
    """The command: 0, or 1 where something is wrong."""
    known = {"--json", "--offline"}
    if odd := [one for one in arguments if one not in known]:
        raise SystemExit(f"clearfuse doctor: error: unknown argument {odd[0]}; allowed: --json, --offline")
    findings = list(examine(network="--offline" not in arguments))
    if "--json" in arguments:
        print(json.dumps([asdict(one) for one in findings], ensure_ascii=False))
    else:
        print(to_text(findings))
    return int(any(one.state == "wrong" for one in findings))
