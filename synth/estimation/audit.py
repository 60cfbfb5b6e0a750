"""Audit of data sets: what is wrong with their pictures as they are, before anything degrades them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from clearfuse.synth.datasets.find import find_all, own_task
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import as_grey, modality_of, read_image
from clearfuse.synth.estimation.estimate import Estimate, estimate
from clearfuse.synth.estimation.network import load_network
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.types import BadPair, PairRef, Task

AUDITED = 0.8
"""Certainty from which a picture of a data set is said to be degraded: of hundreds some are always unusual."""
SHOWN = 3
"""Pictures named with each degradation, the surest."""


def audit(
    sets: Mapping[str, str], task: Task = "vif", progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, dict[str, Any]]:
    """By data set: how many images were looked at, and by operator how many have it, how strong, and which most surely.

    Images that can't be read are left out, which ``check_sets`` reports. Raises UserError for a bad folder.
    """
    refs: list[tuple[str, PairRef]] = []
    for name, location in sets.items():
        manifest = load_manifest(name)
        refs += [(name, ref) for ref in find_all(manifest, location, own_task(manifest, task)).pairs]
    limit_threads()
    load_network()  # before the threads, each of which would
    by_set: dict[str, list[tuple[str, Estimate]]] = {name: [] for name in sets}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for number, ((name, _), found) in enumerate(
            zip(refs, pool.map(_of_pair, (ref for _, ref in refs)), strict=True)
        ):
            by_set[name] += found
            progress(number + 1, len(refs))
    return {name: _summary(found) for name, found in by_set.items()}


def _of_pair(ref: PairRef) -> list[tuple[str, Estimate]]:
    """What is wrong with the images that a build would take for clean, or with a real pair's own."""
    out: list[tuple[str, Estimate]] = []
    for image in ("gt",) if ref.single else ("a", "b"):
        kind = modality_of(ref, image)
        try:
            picture, _ = read_image(ref.sources[image], kind, ref.scale)
            out.append((f"{ref.key}/{image}", estimate(as_grey(picture) if kind == "infrared" else picture, kind)))
        except StoreError:
            raise
        except (BadPair, OSError, ValueError):
            continue
    return out


def _summary(found: Sequence[tuple[str, Estimate]]) -> dict[str, Any]:
    by_operator: dict[str, list[tuple[float, float, str]]] = {}
    for where, one in found:
        for finding in one.found(AUDITED):
            by_operator.setdefault(finding.op, []).append((finding.certainty, finding.value, where))
    return {
        "images": len(found),
        "found": {
            op: {
                "images": len(all_of),
                "median": median(value for _, value, _ in all_of),
                "surest": [where for _, _, where in sorted(all_of, reverse=True)[:SHOWN]],
            }
            for op, all_of in sorted(by_operator.items(), key=lambda item: -len(item[1]))
        },
    }


def describe(audited: Mapping[str, Mapping[str, Any]]) -> str:
    """The audit as text: a line for each data set and operator."""
    lines: list[str] = []
    for name, facts in audited.items():
        found: Mapping[str, Any] = facts["found"]
        lines.append(f"{name}: {facts['images']} images looked at, " + ("degraded:" if found else "none is degraded"))
        for op, one in found.items():
            share = 100 * one["images"] / facts["images"]
            named = ", ".join(one["surest"])
            lines.append(f"  {op}: {one['images']} ({share:.0f} %), median {_strength(op, one['median'])}; {named}")
    return "\n".join(lines)


def _strength(op: str, value: float) -> str:
    from clearfuse.synth.estimation.estimate import Finding

    return Finding(op, 1.0, 0.0, value, value, value).strength()
