"""The last files of a build: what other tools read it by, ``dataset.json``, which says it is whole, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearfuse.synth.builder.companions import TITLES, companions, features, what_a_and_b_are
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.files.jsonstream import Stream, write_json
from clearfuse.synth.files.storage import landing
from clearfuse.synth.samples.mixture import Mixture
from clearfuse.synth.samples.recipe import Recipe, Rule
from clearfuse.synth.shards.receipts import Receipts
from clearfuse.synth.types import SCHEMA, Category

if TYPE_CHECKING:
    from clearfuse.synth.builder.build import Build

_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]


def write_dataset(build: Build, receipts: Receipts) -> None:
    """``dataset.json``: the shards with their hashes, the counts, and the settings that made them.

    Before it the files of ``companions``, so that a build which says it is whole has them.
    """
    for name, content in companions(build, receipts).items():
        write_json(build.out / name, content)
    data = {
        "schema": SCHEMA,
        "task": build.spec.task,
        "split": build.split,
        "splits": {split: receipts.samples[split] for split in build.splits},
        "samples": receipts.samples.total(),
        "bytes": receipts.bytes,
        "variants": build.variants,
        "rejects": dict(sorted(receipts.rejects.items())),
        "redrawn": receipts.redrawn,
        "shards": Stream(receipts),
        "digest": build.digest,
        "settings": dict(build.settings),
    }
    write_json(build.out / "dataset.json", data)


def write_card(build: Build, receipts: Receipts) -> None:
    """``README.md``: a data-set card with YAML front matter for the Hugging Face hub."""
    with landing(build.out / "README.md") as file:
        file.write(card(build, receipts).encode())


def card(build: Build, receipts: Receipts) -> str:
    """The card's text: what it is, where it comes from under which terms, how to read it and how to make it again."""
    task, recipe = build.spec.task, build.spec.recipe
    samples, rejects = receipts.samples.total(), receipts.rejects.total()
    size = next((label for bound, label in _SIZES if samples < bound), "n>1M")
    sources = "\n".join(_source(name, record) for name, record in build.settings["data"].items())
    counts = _counts(build, receipts)
    real = build.pairs.real
    what, made = ("Clean", "crop") if build.spec.lean else ("Degraded", "crop" if real else "degraded\nversion")
    if isinstance(recipe, Mixture):
        what, made = "Clean and damaged", "version"
    pairs = f"{len(build.pairs)} {'real' if real else 'clean'} pairs"
    again = f", {receipts.redrawn} drawn again since their structure was lost" if receipts.redrawn else ""
    if isinstance(recipe, Mixture):
        how = _mixture(build, recipe)
    else:
        how = _crops(build) if build.spec.lean or bool(build.pairs.predegraded.all()) else _recipe(build, recipe)
    members = _real_members if real else _lean_members if build.spec.lean else _members
    return f"""---
{_licence(build)}
pretty_name: "{what} {TITLES[task]} pairs"
task_categories:
- image-to-image
tags:
- image-fusion
- image-restoration
- {task}
- webdataset
size_categories:
- {size}
configs:
- config_name: default
  data_files:
{_data_files(build)}
dataset_info:
  config_name: default
  features:
{_features(build)}
---
# {what} {TITLES[task]} pairs

{samples} samples of {pairs} in {len(receipts)} shards ({counts}), {build.variants} {made}\
{"s" if build.variants > 1 else ""} a pair, {rejects} rejected{again}.
{what_a_and_b_are(task)[0].upper()}{what_a_and_b_are(task)[1:]}.

{members(build)}

{_reading(build)}

## Sources
| data set | pairs | licence | citation |
|---|---|---|---|
{sources}

{how}
"""


def _licence(build: Build) -> str:
    """The hub's name of the licence: scenes made here are ours to give, other sets keep their own terms."""
    if set(build.settings["data"]) == {"scenes"}:
        return "license: mit"
    return "license: other\nlicense_name: terms-of-the-source-data-sets"


def _features(build: Build) -> str:
    return "\n".join(f"  - name: {column['name']}\n    dtype: {column['dtype']}" for column in features(build))


def _reading(build: Build) -> str:
    """How other tools read the build, in lines that run."""
    task, split = build.spec.task, build.splits[0]
    kinds = {"string": 'Value("string")', "json": "Json()", "image": "Image()", "binary": 'Value("binary")'}
    columns = ", ".join(f'"{column["name"]}": {kinds[column["dtype"]]}' for column in features(build))
    further = "".join(f", `index-{other}.json` for {other}" for other in build.splits[1:])
    return f"""## Reading it
`datasets` (4.7 or later) reads this folder, or the repository it was pushed to, by this card:
`load_dataset(FOLDER, streaming=True)`. Shards by themselves want the features too, since it would take the parameters
of the first five samples for those of all:

```python
from datasets import Features, Image, Json, Value, load_dataset
features = Features({{{columns}}})
files = {{"{_HUB_SPLITS.get(split, split)}": "{task}-{split}-*.tar"}}
rows = load_dataset("webdataset", data_files=files, streaming=True, features=features)
```
`wids.ShardListDataset("index.json")` reads samples by number{further}; `croissant.json` describes shards and members
(Croissant 1.1). `datasets` rounds the last digit of the `json`'s numbers; what replays a sample reads the shard."""


_HUB_SPLITS = {"val": "validation"}
"""The names that the hub gives to splits."""


def _data_files(build: Build) -> str:
    """The files of each split, under the names that the hub gives them."""
    lines = (
        f'  - split: {_HUB_SPLITS.get(split, split)}\n    path: "{build.spec.task}-{split}-*.tar"'
        for split in build.splits
    )
    return "\n".join(lines)


def _counts(build: Build, receipts: Receipts) -> str:
    """``train``; or samples by split where there are several."""
    if len(build.splits) == 1:
        return build.split
    return ", ".join(f"{receipts.samples[split]} {split}" for split in build.splits)


def _members(build: Build) -> str:
    codec = build.codec
    return f"""| member | what |
|---|---|
| `a.{codec}`, `b.{codec}` | the degraded pair |
| `clean_a.{codec}`, `clean_b.{codec}` | the same crop, not degraded |
| `gt.{codec}` | ground truth, fused from the clean pair or the data set's own |
| `depth.png` | the depth that the steps used: 16 bit, 1/64 m, 65535 sky, 0 invalid (everywhere, where none did) |
| `txt` | the prompt |
| `json` | sources, crop, every step with its parameters and seed, fuser, depth |

```python
import webdataset as wds
for sample in wds.WebDataset("{build.spec.task}-{build.splits[0]}-000000.tar", shardshuffle=False).decode("pil"):
    print(sample["txt"], sample["a.{codec}"].size)
```
`synth verify --replay` makes every degraded image again from the sample alone and compares it bit for bit.\
{_needs(build)}\
{"" if isinstance(build.spec.recipe, Mixture) else _given(build) + _single(build)}"""


def _needs(build: Build) -> str:
    """A sentence about the plugins that it was made with, where there are any."""
    named = [f"`{one['name']}` (sha256 `{one['sha256'][:12]}`)" for one in build.settings.get("plugins", ())]
    return f" It needs {', '.join(named)} by `--plugin`." if named else ""


def _single(build: Build) -> str:
    """A line about the sets of single pictures, where there are any."""
    names = [name for name, record in build.settings["data"].items() if record.get("single")]
    if not names:
        return ""
    how = {
        "mef": "two exposures of a picture in linear light through a camera curve",
        "mff": "a picture split by its depth, each side out of focus in turn",
    }[build.spec.task]
    return f"""
The pairs of {", ".join(names)} are made of single pictures: {how} (`single` in the `json` says which);
their ground truth is the picture itself."""


def _given(build: Build) -> str:
    """A line about the sets that come degraded, where there are any."""
    names = [name for name, record in build.settings["data"].items() if record.get("given")]
    if not names:
        return ""
    return f"""
The pairs of {", ".join(names)} come degraded and are packed as they are (`"given": true` in the `json`): their steps
are names without parameters, and nothing of them is made again."""


def _real_members(build: Build) -> str:
    codec = build.codec
    return f"""Real: the pairs are degraded and have no clean side, no ground truth and no depth: to evaluate on, not to
train on (`train eval`).

| member | what |
|---|---|
| `a.{codec}`, `b.{codec}` | the degraded pair, as it is |
| `txt` | the prompt |
| `json` | sources, crop, the degradations that are known, as names; `"real": true` |"""


def _lean_members(build: Build) -> str:
    codec, task = build.codec, build.spec.task
    return f"""Lean: no degraded images and no prompts; `train fit` degrades the pairs as it reads them, anew each time.

| member | what |
|---|---|
| `clean_a.{codec}`, `clean_b.{codec}` | the pair, not degraded |
| `gt.{codec}` | ground truth, fused from the pair or the data set's own |
| `depth.png` | depth along the ray: 16 bit, 1/64 m, 65535 sky, 0 invalid |
| `json` | sources, crop, fuser, depth; `"lean": true` |

```python
from pathlib import Path
from clearfuse import load_recipe
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.shards import read_samples
for sample in map(OnTheFly(load_recipe("{task}")), read_samples(Path("{task}-{build.splits[0]}-000000.tar"))):
    print(sample.prompt, sample.images["a"].shape)
```\
{_single(build)}"""


def _mixture(build: Build, mixture: Mixture) -> str:
    total = sum(mixture.categories.values())
    shares = "\n".join(
        f"| `{name}` | {100 * weight / total:.3g} % | {WHAT[name]} |" for name, weight in mixture.categories.items()
    )
    sizes = ", ".join(map(str, mixture.blocks.sizes))
    return f"""## Mixture `{mixture.name}`
Seed {build.spec.seed}; digest `{build.digest}`. The whole recipe is in `dataset.json` (`settings.recipe`). A pair is
of a category that it can be of: `segment` needs a label map, `fusion` two pictures.

| category | share | ground truth |
|---|---|---|
{shares}

Both inputs of `m3`, and of {100 * (1 - mixture.pairs):.3g} % of `control` and `segment`, are one picture, damaged by
blocks of {sizes} pixels in one input or the other (`blocks` in the `json`); those of the others are the clean pair."""


WHAT: dict[Category, str] = {
    "fusion": "the fusion of the clean pair",
    "m3": "the picture that both inputs were made of",
    "control": "the fusion, its brightness, contrast or colour changed as `control` says",
    "segment": "the fusion, the class that `segment` names marked in blue; its pixels as COCO's run lengths",
}


def _recipe(build: Build, recipe: Recipe) -> str:
    operators = "\n".join(
        f"| `{name}` | {rule.weight:g} | {', '.join(f'{t} {w:g}' for t, w in rule.target.items())} "
        f"| {_severity(rule)} |"
        for name, rule in recipe.operators.items()
    )
    return f"""## Recipe `{recipe.name}`
n = {", ".join(map(str, recipe.n))}; seed {build.spec.seed}; digest `{build.digest}`. The whole recipe is in
`dataset.json` (`settings.recipe`).

| operator | weight | target | severity |
|---|---|---|---|
{operators}"""


def _severity(rule: Rule) -> str:
    """``0 to 1``, or what each turn of a schedule has; a dash where nothing is severe."""
    if not any(declared.kind == "severe" for declared in rule.ranges.values()):
        return "-"
    return ", then ".join(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in rule.severity)


def _crops(build: Build) -> str:
    ratios = ", ".join(ratio for ratio, weight in build.spec.recipe.ratios.items() if weight > 0)
    return f"""## Crops
Ratios {ratios}; seed {build.spec.seed}; digest `{build.digest}`."""


def _source(name: str, record: Mapping[str, Any]) -> str:
    manifest = load_manifest(name)
    title = f"[{manifest.title}]({manifest.url})" if manifest.url else manifest.title
    return f"| {title} | {record['pairs']} | {manifest.licence} | {manifest.citation or '-'} |"
