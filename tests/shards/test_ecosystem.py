"""Other readers: Hugging Face datasets, webdataset, wids and Croissant read a full, a lean and a real build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from clearfuse.synth.builder.run import build
from clearfuse.synth.shards.records import member_names
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.shards.tar import read_shard
from conftest import folder_bytes, save, textured

pytestmark = pytest.mark.slow

KINDS = {"full": ("train", 9), "lean": ("train", 3), "real": ("test", 2)}
"""The split and the number of samples of each build."""
CODEC = {"real": "pnm"}
"""Of builds that are not in WebP."""


RECIPE = """
schema = 1
task = "vif"
n = [2]
[operators]
haze.target = { a = 1 }
low_exposure.target = { a = 1 }
defocus_blur = {}
low_contrast = {}
gaussian_noise = {}
downsample = {}
jpeg = {}
"""
"""Of seven operators, so that no five samples of two steps are sure to have the parameters of all."""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three builds of made pairs, one of them in a codec of its own."""
    root = tmp_path_factory.mktemp("builds")
    for number in range(4):
        save(root / f"data/a/{number}.png", textured(number, 128, 96))
        save(root / f"data/b/{number}.png", textured(50 + number, 128, 96, channels=1))
    for number in (1, 2):
        save(root / f"real/Test_Image/Test_Snow/vi/{number}.png", textured(number, 128, 96))
        save(root / f"real/Test_Image/Test_Snow/ir/{number}.png", textured(9 + number, 128, 96, channels=1))
    (root / "mine.toml").write_text(RECIPE)
    pairs: dict[str, Any] = {"data": f"folder={root / 'data/a'},{root / 'data/b'}", "executor": "serial"}
    build("vif", out=root / "full", recipe=str(root / "mine.toml"), variants=3, shard_size=2, **pairs)
    build("vif", out=root / "lean", lean=True, **pairs)
    real = f"awfusion-real={root / 'real'}"
    build("vif", out=root / "out-real", data=real, split="test", codec=CODEC["real"], executor="serial")
    return {"full": root / "full", "lean": root / "lean", "real": root / "out-real"}


def ours(folder: Path) -> list[dict[str, bytes]]:
    """The members of all samples, by our own reader."""
    return [members for tar in sorted(folder.glob("*.tar")) for _, members in read_shard(tar)]


def ours_keys(folder: Path) -> list[str]:
    """The keys of all samples."""
    return [key for tar in sorted(folder.glob("*.tar")) for key, _ in read_shard(tar)]


def close(left: Any, right: Any) -> bool:
    """Equal but for the last digit of a number, which `datasets` rounds."""
    if isinstance(left, dict):
        return set(left) == set(right) and all(close(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(close, left, right))
    return left == pytest.approx(right, rel=1e-9, abs=1e-10) if isinstance(left, float) else left == right


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The package ``datasets``, offline, with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


@pytest.mark.filterwarnings("ignore")  # datasets' own
@pytest.mark.parametrize("kind", KINDS)
def test_datasets_streams_a_build_by_its_card(hub: Any, builds: dict[str, Path], kind: str) -> None:
    split, count = KINDS[kind]
    rows = list(hub.load_dataset(str(builds[kind]), split=split, streaming=True))
    held = ours(builds[kind])
    assert len(rows) == len(held) == count
    for row, members in zip(rows, held, strict=True):
        assert set(row) == {*members, "__key__", "__url__"}
        assert close(row["json"], json.loads(members["json"]))
        assert row.get("txt", "").encode() == members.get("txt", b"")
    for row, sample in zip(rows, (s for t in sorted(builds[kind].glob("*.tar")) for s in read_samples(t)), strict=True):
        for name, image in sample.images.items():
            read = np.asarray(row[f"{name}.{CODEC.get(kind, 'webp')}"])
            assert np.array_equal(read.reshape(*image.shape[:2], -1)[..., : image.shape[2]], image)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_datasets_streams_the_shards_alone(hub: Any, builds: dict[str, Path], kind: str) -> None:
    split, count = KINDS[kind]
    files = {split: [str(tar) for tar in sorted(builds[kind].glob("*.tar"))]}
    rows = list(hub.load_dataset("webdataset", data_files=files, split=split, streaming=True))
    assert len(rows) == count and all(row["json"]["schema"] == 1 for row in rows)


@pytest.mark.filterwarnings("ignore")
def test_the_cards_lines_run_and_lose_no_parameter(
    hub: Any, builds: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (builds["full"] / "README.md").read_text()
    block = next(part for part in card.split("```python\n")[1:] if part.startswith("from datasets")).split("```")[0]
    monkeypatch.chdir(builds["full"])
    scope: dict[str, Any] = {}
    exec(block, scope)
    for row, members in zip(scope["rows"]["train"], ours(builds["full"]), strict=True):
        assert close(row["json"], json.loads(members["json"]))
    whole = hub.load_dataset(str(builds["full"]), split="train")  # not streamed: into an Arrow table
    assert len(whole) == 9 and whole.features["json"] == hub.Json()


@pytest.mark.filterwarnings("ignore")  # webdataset and wids leave files to the collector
@pytest.mark.parametrize("kind", KINDS)
def test_webdataset_and_wids_read_a_build(builds: dict[str, Path], tmp_path: Path, kind: str) -> None:
    import webdataset

    wids = pytest.importorskip("wids", reason="needs wids")
    held, folder = ours(builds[kind]), builds[kind]
    tars = [str(tar) for tar in sorted(folder.glob("*.tar"))]
    read = list(webdataset.WebDataset(tars, shardshuffle=False))  # type: ignore[attr-defined]
    indexed = wids.ShardListDataset(str(folder / "index.json"), cache_dir=str(tmp_path / "wids"), keep=True)
    assert len(read) == len(indexed) == len(held)
    for at, members in enumerate(held):
        assert {name: read[at][name] for name in members} == members
        one = indexed[at]
        assert {f".{name}" for name in members} == {name for name in one if name.startswith(".")}
        assert one[".json"] == json.loads(members["json"])


CROISSANT = """
import json, sys, mlcroissant
said = {}
for path in sys.argv[1:]:
    data = mlcroissant.Dataset(path)
    seen = {}
    for one in data.metadata.record_sets:
        records = list(data.records(one.uuid))
        first = records[0]
        content = first[f"{one.uuid}/content"]
        keys = sorted(record[f"{one.uuid}/key"].decode() for record in records)
        seen[one.uuid] = [keys, getattr(content, "size", None)]
    issues = data.metadata.ctx.issues
    said[path] = [sorted(issues.errors), sorted(issues.warnings), seen]
    mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH /= "next"  # it tells archives apart by name alone
print(json.dumps(said))
"""


def test_croissant_validates_and_reads_every_member(builds: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("mlcroissant", reason="needs mlcroissant")
    command = [sys.executable, "-c", CROISSANT, *(str(builds[kind] / "croissant.json") for kind in KINDS)]
    environment = os.environ | {"CROISSANT_CACHE": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr
    for kind, (errors, warnings, seen) in zip(KINDS, json.loads(ran.stdout).values(), strict=True):
        unsaid = {"datePublished"} | (set() if kind == "real" else {"citeAs"})  # a folder of one's own cites nobody
        assert errors == [] and len(warnings) == len(unsaid)
        assert all(any(name in line for name in unsaid) for line in warnings)
        split, count = KINDS[kind]
        assert set(seen) == {f"{split}/{name.partition('.')[0]}" for name in ours(builds[kind])[0]}
        for name, (keys, size) in seen.items():
            assert keys == ours_keys(builds[kind]) and len(keys) == count
            assert (size is None) == name.endswith(("txt", "json"))


def test_the_companions_name_the_members_and_no_time(builds: dict[str, Path]) -> None:
    for kind, folder in builds.items():
        held = ours(folder)[0]
        assert member_names(CODEC.get(kind, "webp"), lean=kind == "lean", real=kind == "real") == list(held)
        data = json.loads((folder / "croissant.json").read_bytes())
        hashes = {one["name"]: one["sha256"] for one in data["distribution"] if one["@type"] == "cr:FileObject"}
        listed = json.loads((folder / "dataset.json").read_bytes())["shards"]
        assert hashes == {shard["shard"]: shard["sha256"] for shard in listed}
        assert not {"datePublished", "dateCreated", "dateModified"} & set(data)


def test_a_build_is_what_the_schemas_of_its_files_say(builds: dict[str, Path]) -> None:
    folder = Path(__file__).parents[2] / "docs/schemas"
    names = ("sample", "receipt", "dataset", "index")
    schemas = {name: Draft202012Validator(json.loads((folder / f"{name}.schema.json").read_text())) for name in names}
    for out in builds.values():
        files = [("dataset", out / "dataset.json"), ("index", out / "index.json")]
        files += [("receipt", tar.with_suffix(".json")) for tar in out.glob("*.tar")]
        said = [(name, path.read_bytes()) for name, path in files] + [("sample", one["json"]) for one in ours(out)]
        for name, text in said:
            assert [error.message for error in schemas[name].iter_errors(json.loads(text))] == []
    assert not schemas["receipt"].is_valid({"schema": 1})


def test_several_splits_have_an_index_each(tmp_path: Path, msrs: Path) -> None:
    common: dict[str, Any] = {"data": f"msrs={msrs}", "n": "1", "codec": "png", "depth": "prior", "shard_size": 4}
    build("vif", out=tmp_path / "out", split="train,test", executor="serial", **common)
    held = folder_bytes(tmp_path / "out")
    indexes = {name: json.loads(data) for name, data in held.items() if name.startswith("index")}
    shards = {name: [(s["url"], s["nsamples"]) for s in index["shardlist"]] for name, index in indexes.items()}
    assert shards == {
        "index.json": [("vif-train-000000.tar", 4), ("vif-train-000001.tar", 2)],
        "index-test.json": [("vif-test-000000.tar", 2)],
    }
