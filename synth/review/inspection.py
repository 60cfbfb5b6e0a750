"""What a build holds: operators, combinations, severities, parameters, sizes, prompts, quality, rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clearfuse.synth.console import plural
from clearfuse.synth.files import storage
from clearfuse.synth.files.storage import Location
from clearfuse.synth.review.tally import Tally, kind_of, ordered
from clearfuse.synth.shards.find import find_shards
from clearfuse.synth.shards.receipts import read_receipt
from clearfuse.synth.shards.sample import holds_latents, read_meta, read_prompt
from clearfuse.synth.shards.tar import read_shard, receipt_path
from clearfuse.synth.types import UserError

Progress = Callable[[int, int], None]


def inspect(paths: Sequence[str], examples: int = 3, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Counts and distributions over shards, and the first few samples in words.

    ``categories``, ``n``, ``operators``, ``combinations``, ``together`` (operator -> operator -> samples of both),
    ``targets``, ``severities`` (mild to strong), ``parameters`` and ``metrics`` (lowest, median, highest, bins),
    ``datasets``, sizes, prompts, ``rejects`` (kind of reason -> count). Reads metadata and prompts only; no image is
    decoded, and memory does not grow with the samples (``prompts`` is an estimate from 131,072 different ones on).
    Raises UserError for a damaged shard.
    """
    shards, _ = find_shards(paths)
    tally = Tally()
    shown: list[dict[str, Any]] = []
    rejects, size = Counter[str](), 0
    for done, path in enumerate(shards, 1):
        try:
            for key, members in read_shard(path):
                if holds_latents(members):
                    raise ValueError(f"sample {key}: holds latents of train cache, nothing to inspect")
                meta = read_meta(key, members)
                prompt = None if meta.lean else read_prompt(key, members)
                tally.add(meta, prompt)
                if len(shown) < examples:
                    steps = [f"{step.op}({step.target})" for step in meta.steps]
                    pair = f"{meta.dataset}/{meta.pair}"
                    said = {"category": meta.category, "steps": steps, "prompt": prompt}
                    shown.append({"key": key, "pair": pair, **said})
        except ValueError as error:
            named = error if path.name in str(error) else f"{path.name}: {error}"
            raise UserError(f"{named}; see synth verify") from None
        rejects.update(_rejects(path))
        size += storage.size(path)
        progress(done, len(shards))
    held = tally.to_json()
    return {**held, "shards": len(shards), "bytes": size, "rejects": dict(ordered(rejects)), "examples": shown}


def _rejects(shard: Location) -> list[str]:
    """Why pairs of a shard were left out, by its receipt; nothing where it has none."""
    receipt = receipt_path(shard)
    if not receipt.is_file():
        return []
    return [kind_of(reject.reason) for reject in read_receipt(receipt).rejects]


def describe(report: dict[str, Any]) -> str:
    """The report as text: a line a count, operators with a bar and their severities from mild to strong."""
    held = plural(report["samples"], "sample"), plural(report["shards"], "shard")
    lines = [f"{held[0]} in {held[1]}, {plural(report['prompts'], 'different prompt')}"]
    if report["lean"]:
        lines.append(f"lean: {report['lean']}, clean images, ground truth and depth alone: degraded as they are read")
    if report["given"]:
        lines.append(f"given: {report['given']}, degraded by others: their steps have no parameters")
    if report["real"]:
        lines.append(f"real: {report['real']}, degraded pairs without a clean side or ground truth: to evaluate on")
    if set(report["categories"]) != {"fusion"}:
        lines += [_counts(name, report[name]) for name in ("categories", "controls", "classes", "blocks", "sides")]
    if report["n"]:
        lines.append("n: " + ", ".join(f"{n}: {c}" for n, c in report["n"].items()))
    lines.append("data sets: " + ", ".join(f"{name} {c}" for name, c in report["datasets"].items()))
    lines.append("ground truth: " + ", ".join(f"{name} {c}" for name, c in report["fusers"].items()))
    lines.append("crop ratios: " + ", ".join(f"{name} {c}" for name, c in report["ratios"].items()))
    if report["operators"]:
        lines += _degradations(report)
    if report["rejects"]:
        lines.append("rejects: " + ", ".join(f"{count}: {reason}" for reason, count in report["rejects"].items()))
    lines.append("examples:")
    for one in report["examples"]:
        lines.append(f"  {one['key']} {one['pair']}: {', '.join(one['steps']) or _no_steps(one)}")
        lines += [] if one["prompt"] is None else [f'    "{one["prompt"]}"']
    return "\n".join(lines)


def _counts(name: str, counts: Mapping[str, int]) -> str:
    return f"{name}: " + (", ".join(f"{key} {count}" for key, count in counts.items()) or "none")


def _no_steps(one: Mapping[str, Any]) -> str:
    return (
        one["category"] if one["category"] != "fusion" else "lean" if one["prompt"] is None else "no degradation named"
    )


def _degradations(report: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    most = max(report["operators"].values(), default=1)
    lines.append("operators (severity from mild to strong; targets):")
    for name, count in report["operators"].items():
        bar = "#" * max(round(20 * count / most), 1)
        severity = " ".join(map(str, report["severities"].get(name, [])))
        target = ", ".join(f"{t} {c}" for t, c in report["targets"][name].items())
        lines.append(f"  {name:<16}{count:>6}  {bar:<20}  [{severity}]  {target}")
    lines.append("most frequent combinations:")
    return lines + [f"  {count:>6}  {name}" for name, count in list(report["combinations"].items())[:8]]
