"""The data of ``synth list datasets``: facts from the manifests, and what is in given folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from clearfuse.synth.datasets.find import find_all, own_task
from clearfuse.synth.datasets.manifest import Manifest, load_manifest, manifest_names
from clearfuse.synth.types import UserError


def catalogue(folders: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Facts by data set: task, title, counts, splits, ground truth, licence, citation, url.

    folders: of data sets, by name; ``found`` has the counts of their contents, and is None for the others. Raises
    UserError where a folder does not exist or nothing matches its layout.
    """
    folders = folders or {}
    entries = {name: _facts(load_manifest(name)) for name in manifest_names()}
    for name, location in folders.items():
        manifest = load_manifest(name)
        if manifest.builtin:
            raise UserError(f"--data {name}={location}: '{name}' is built in: there is no folder")
        entries[name]["found"] = _found(manifest, location)
    return entries


def _facts(manifest: Manifest) -> dict[str, Any]:
    by_frames = bool(manifest.sequence)
    return {
        "task": manifest.task,
        "title": manifest.title,
        "expected": dict(manifest.counts),
        "found": None,
        "splits": list(manifest.splits) if manifest.splits else "test" if manifest.real else "by hash of the scene",
        "layout": manifest.expected,
        "sequences": by_frames,
        "gt": bool(manifest.gt),
        "degraded": bool(manifest.degraded_a or manifest.degraded_b),
        "real": manifest.real,
        "single": manifest.single,
        "labels": bool(manifest.labels or manifest.annotations or manifest.builtin),
        "boxes": bool(manifest.boxes),
        "prompts": bool(manifest.prompts),
        "videos": manifest.video,
        "licence": manifest.licence,
        "use": manifest.use,
        "citation": manifest.citation,
        "url": manifest.url,
    }


def _found(manifest: Manifest, location: str) -> dict[str, Any]:
    found = find_all(manifest, location, own_task(manifest))
    named = sorted(manifest.parts, key=len, reverse=True)  # of rain and rain-heavy the latter
    of = Counter(next((name for name in named if ref.key.startswith(f"{name}-")), "") for ref in found.pairs)
    parts = {name: of[name] for name in manifest.parts}
    return {
        "pairs": len(found.pairs),
        **dict(found.splits),
        **parts,
        "gt": sum("gt" in ref.sources for ref in found.pairs),
        "ignored": found.ignored,
        "unpaired": len(found.unpaired),
    }


def summary(facts: Mapping[str, Any]) -> str:
    """The facts of a data set, in one line."""
    return "; ".join([f"{facts['task']}: {facts['title']}", *_fact_lines(facts)])


def _fact_lines(facts: Mapping[str, Any]) -> list[str]:
    what = "sequences" if facts["sequences"] else "frames of videos" if facts["videos"] else "pairs"
    expected = ", ".join(f"{count} {name}" for name, count in facts["expected"].items())
    degraded = "; with degraded images" if facts["degraded"] else ""
    degraded += "; made of single pictures" if facts["single"] else ""
    degraded += "; real: no clean images, for evaluation only" if facts["real"] else ""
    degraded += "".join(f"; {name}" for name in ("boxes", "prompts") if facts[name])
    splits = facts["splits"] if isinstance(facts["splits"], str) else f"its own ({', '.join(facts['splits'])})"
    lines = [
        f"{what}: {expected or 'any'}{_found_text(facts)}; splits: {splits}; ground truth: "
        f"{'yes' if facts['gt'] else 'no'}{degraded}",
        f"licence: {facts['licence']} (use: {facts['use']})",
    ]
    lines += [f"cite: {facts['citation']}"] if facts["citation"] else []
    return lines + ([f"get it: {facts['url']}"] if facts["url"] else [])


def _found_text(facts: Mapping[str, Any]) -> str:
    found = facts["found"]
    if found is None:
        return ""
    counts = ", ".join(f"{count} {name}" for name, count in found.items() if count or name == "pairs")
    return f"; found: {counts}"
