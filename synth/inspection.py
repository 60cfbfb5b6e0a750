"""What a build holds: counts and histograms of operators, combinations, severities, sizes and prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from synth.console import counted
from synth.shards import is_lean, is_real, read_shard
from synth.types import UserError
from synth.verify import find_shards

SEVERITY_BINS = 5


def inspect(paths: Sequence[str], examples: int = 3) -> dict[str, Any]:
    """Counts over shards: n, operators, combinations, severities, targets, data sets, sizes, prompts, examples.

    Reads metadata and prompts only; no image is decoded. Raises UserError for a damaged shard.
    """
    shards, _ = find_shards(paths)
    count: dict[str, Counter[str]] = {
        name: Counter() for name in ("n", "operators", "combinations", "datasets", "ratios", "sizes", "fusers", "asked")
    }
    targets: dict[str, Counter[str]] = {}
    severities: dict[str, list[int]] = {}
    prompts: set[str] = set()
    lean = given = real = 0
    shown: list[dict[str, Any]] = []
    samples = 0
    for path in shards:
        try:
            for key, members in read_shard(path):
                meta = json.loads(members["json"])
                prompt = None if is_lean(meta) else members["txt"].decode()
                samples += 1
                lean += prompt is None
                given += meta.get("given") is True
                real += is_real(meta)
                prompts |= set() if prompt is None else {prompt}
                _tally(meta, count, targets, severities)
                if len(shown) < examples:
                    steps = [f"{s['op']}({s['target']})" for s in meta["steps"]]
                    shown.append(
                        {"key": key, "pair": f"{meta['dataset']}/{meta['pair']}", "steps": steps, "prompt": prompt}
                    )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = error if path.name in str(error) else f"{path.name}: a sample is damaged: {error!r}"
            raise UserError(f"{reason}; see synth verify") from None
    return {
        "samples": samples,
        "lean": lean,
        "given": given,
        "real": real,
        "shards": len(shards),
        **{
            name: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0]))) for name, counter in count.items()
        },
        "n": {n: count["n"][n] for n in sorted(count["n"], key=int)},
        "targets": {op: dict(sorted(counter.items())) for op, counter in sorted(targets.items())},
        "severities": dict(sorted(severities.items())),
        "prompts": len(prompts),
        "examples": shown,
    }


def _tally(
    meta: dict[str, Any],
    count: dict[str, Counter[str]],
    targets: dict[str, Counter[str]],
    severities: dict[str, list[int]],
) -> None:
    names = [step["op"] for step in meta["steps"]]
    count["datasets"][meta["dataset"]] += 1
    count["ratios"][meta["ratio"]] += 1
    count["sizes"]["x".join(map(str, meta["crop"][2:]))] += 1
    count["fusers"][meta["fuser"]["name"]] += 1
    if is_lean(meta):
        return
    count["n"][str(meta["n"])] += 1
    count["combinations"][" + ".join(names) or "none named"] += 1
    count["asked"]["all" if len(meta["prompt"]["asked"]) == meta["n"] else "a part"] += 1
    for step in meta["steps"]:
        count["operators"][step["op"]] += 1
        targets.setdefault(step["op"], Counter())[step["target"]] += 1
        if step.get("severity") is not None:
            bins = severities.setdefault(step["op"], [0] * SEVERITY_BINS)
            bins[min(int(step["severity"] * SEVERITY_BINS), SEVERITY_BINS - 1)] += 1


def describe(report: dict[str, Any]) -> str:
    """The report as text: a line a count, operators with a bar and their severities from mild to strong."""
    held = counted(report["samples"], "sample"), counted(report["shards"], "shard")
    lines = [f"{held[0]} in {held[1]}, {counted(report['prompts'], 'different prompt')}"]
    if report["lean"]:
        lines.append(f"lean: {report['lean']}, clean images, ground truth and depth alone: degraded as they are read")
    if report["given"]:
        lines.append(f"given: {report['given']}, degraded by others: their steps have no parameters")
    if report["real"]:
        lines.append(f"real: {report['real']}, degraded pairs without a clean side or ground truth: to evaluate on")
    if report["n"]:
        lines.append("n: " + ", ".join(f"{n}: {c}" for n, c in report["n"].items()))
    lines.append("data sets: " + ", ".join(f"{name} {c}" for name, c in report["datasets"].items()))
    lines.append("ground truth: " + ", ".join(f"{name} {c}" for name, c in report["fusers"].items()))
    lines.append("crop ratios: " + ", ".join(f"{name} {c}" for name, c in report["ratios"].items()))
    if report["operators"]:
        lines += _degradations(report)
    lines.append("examples:")
    for one in report["examples"]:
        lines.append(f"  {one['key']} {one['pair']}: {', '.join(one['steps']) or _no_steps(one)}")
        lines += [] if one["prompt"] is None else [f'    "{one["prompt"]}"']
    return "\n".join(lines)


def _no_steps(one: Mapping[str, Any]) -> str:
    return "lean" if one["prompt"] is None else "no degradation named"


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
