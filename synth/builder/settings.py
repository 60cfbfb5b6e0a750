"""The settings that a build's digest covers: everything that decides a byte, and nothing that does not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clearfuse.synth.builder.options import Options
from clearfuse.synth.datasets.find import FoundPairs
from clearfuse.synth.datasets.pairs import RUN, Pairs
from clearfuse.synth.datasets.select import split_names, without_clean_side
from clearfuse.synth.depth import DEPTHS, DepthSource
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.fusers import FUSERS
from clearfuse.synth.fusers.choice import fuser_weights
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.operators import albumentations as bridge
from clearfuse.synth.prompts.instructions import instructions_digest
from clearfuse.synth.prompts.pools import pools_digest
from clearfuse.synth.samples.mixture import Mixture
from clearfuse.synth.samples.prepare import uses_network
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.tables import MANIFESTS, plugins_of
from clearfuse.synth.version import __version__


def build_settings(
    options: Options,
    recipe: Recipe | Mixture,
    pairs: Pairs,
    found: Mapping[str, FoundPairs],
    fusers: Mapping[str, str],
    depths: Mapping[str, DepthSource],
) -> dict[str, Any]:
    """What the digest covers: everything that decides a byte, and nothing that does not."""
    drawn: dict[str, Any] = {
        "partial": options.partial,
        "recipe": {"name": recipe.name, **recipe.source},
        "prompts": pools_digest(None if options.prompts is None else Path(options.prompts), options.language),
        **({} if options.language == "en" else {"language": options.language}),
    }
    if isinstance(recipe, Mixture):
        del drawn["partial"]
        drawn["instructions"] = instructions_digest(
            None if options.prompts is None else Path(options.prompts), options.language
        )
    crops = {"recipe": {"name": recipe.name, "ratios": dict(recipe.ratios)}}
    if options.lean:
        drawn = {"lean": True, **crops}
    elif without_clean_side(pairs):
        drawn = crops | {name: drawn[name] for name in ("prompts", "language") if name in drawn}
    degrades = not (options.lean or isinstance(recipe, Mixture) or without_clean_side(pairs))
    ours = plugins_of(
        (OPERATORS, recipe.operators if degrades and isinstance(recipe, Recipe) else ()),
        (FUSERS, fusers.values()),
        (DEPTHS, (depth.name for depth in depths.values())),
    )
    return {
        "task": options.task,
        "split": ",".join(split_names(options.split)),
        "pairs": options.pairs,
        "seed": options.seed,
        "limit": options.limit,
        "shard_size": options.shard_size,
        "codec": options.codec,
        "min_gt": options.min_gt,
        **drawn,
        "data": {name: _data_record(name, mine) for name, mine in pairs.by_dataset.items()},
        "fuser": {
            name: {"name": one, "weights": fuser_weights(one, pairs.by_dataset[name].task)}
            for name, one in fusers.items()
        },
        "depth": {name: depth.recorded() for name, depth in depths.items()},
        "versions": versions(
            options.codec,
            () if isinstance(recipe, Mixture) else recipe.operators,
            network=uses_network(fusers, depths),
            torch=any(depth.torch for depth in depths.values()),
        ),
        **({"plugins": ours} if ours else {}),
    }


def _data_record(name: str, pairs: Pairs) -> dict[str, Any]:
    """What the digest says of a set: how many pairs, and a hash over their keys with the sizes of their files."""
    hashed = hashlib.sha256(b"[")
    for start in range(0, len(pairs), RUN):
        hashed.update((b", " if start else b"") + dumps(list(pairs[start : start + RUN].records()))[1:-1])
    hashed.update(b"]")
    record: dict[str, Any] = {"pairs": len(pairs), "digest": hashed.hexdigest()[:32]}
    record |= {} if pairs.scale is None else {"scale": pairs.scale}
    kind = "real" if pairs.real else "given"
    record |= {"single": True} if pairs.single else {}
    record |= {"manifest": hashlib.sha256(MANIFESTS[name][1]).hexdigest()} if name in MANIFESTS else {}
    return record | ({kind: True} if pairs.predegraded.any() else {})


def versions(
    codec: str, operators: Iterable[str] = (), *, network: bool = False, torch: bool = False
) -> dict[str, str]:
    """The versions that decide bytes: ours, the pixels', the codecs', the bridge's and the networks' where used.

    network: one of those that others trained; torch: torch alone.
    """
    from PIL import features

    names = ["numpy", "opencv-python-headless", "pillow"] + (["imagecodecs"] if codec == "jxl" else [])
    names += bridge.VERSIONS if any(map(bridge.is_bridged, operators)) else ()
    names += ["torch", "transformers"] if network else ["torch"] if torch else []
    libraries = {name: version(name) for name in names}
    return {"clearfuse": __version__, **libraries, "libwebp": str(features.version("webp"))}
