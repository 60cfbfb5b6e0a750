"""Properties of every manifest: it loads, is complete, and finds a synthetic folder in its own layout."""

from __future__ import annotations

import itertools
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from clearfuse.synth.datasets.find import find_all, own_task
from clearfuse.synth.datasets.manifest import load_manifest, natural
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.files.resources import read_toml, resource_dir, resource_names
from clearfuse.synth.types import TASKS, UserError
from conftest import save, textured

NAMES = resource_names("manifests/datasets")
ON_DISK = [name for name in NAMES if not load_manifest(name).builtin and name != "folder"]


@pytest.mark.parametrize("name", NAMES)
def test_it_states_what_a_user_must_know(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.title and manifest.licence
    assert manifest.task in (*TASKS, "any")
    assert (
        manifest.builtin
        or name in ("folder", "single", "labelled")
        or (manifest.citation and manifest.url.startswith("https://"))
    )


def _made(template: str, **names: str) -> str:
    """A path of a template's first form: of ``{one|other}`` the first, and the extension png."""
    filled = re.sub(r"\{([^{}|]*)\|[^{}]*\}", r"\1", template).replace("{frame:d}", "{frame}")
    for name, value in names.items():
        filled = filled.replace(f"{{{name}}}", value)
    return re.sub(r"\.\*\Z", ".png", filled)


def _box(path: Path, name: str) -> str:
    """A box in a picture of 80x64, as YOLO or Pascal VOC has it."""
    if path.suffix == ".txt":
        return f"{name} 0.5 0.5 0.25 0.5\n"
    corners = "<xmin>30</xmin><ymin>16</ymin><xmax>50</xmax><ymax>48</ymax>"
    return f"<annotation><object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>"


def _make(root: Path, name: str, form: int) -> int:
    """Write a folder in one of a manifest's forms, with three scenes per split or part; returns their number."""
    manifest = load_manifest(name)
    splits = list(manifest.splits.values()) or [""]
    parts = list(manifest.parts.values()) or [""]
    scenes = 0
    for split, part, key in itertools.product(splits, parts, ("1", "2", "10")):
        scenes += 1
        of_split = f"{key}{split}" if "{split}" in next(iter(manifest.templates.values()))[form] else key
        for i, (image, templates) in enumerate(manifest.templates.items()):
            template = templates[min(form, len(templates) - 1)]
            for frame in range(3 if "{frame" in template else 1):
                said = f"{frame}" if "{frame:d}" in template else f"f{frame}"
                path = root / _made(template, key=of_split, split=split, part=part, frame=said)
                if image in ("boxes", "prompts"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    text = _box(path, next(iter(manifest.box_classes))) if image == "boxes" else "remove it\nclear it\n"
                    path.write_text(text)
                elif not path.exists():
                    save(path, textured(10 * scenes + i, 80, 64) // (frame + 1))
    if "{split}" not in next(iter(manifest.templates.values()))[form]:
        scenes //= len(splits)
    if manifest.archives:
        _pack(root)
    return scenes


def _pack(root: Path) -> None:
    """A tar in place of each folder, its files in natural order, so that a sample's lie together."""
    for folder in sorted(root.iterdir()):
        with tarfile.open(root / f"packed-{folder.name.replace('*', '0')}", "w") as tar:
            for file in sorted(folder.iterdir(), key=lambda file: natural(file.name)):
                tar.add(file, file.name)
        shutil.rmtree(folder)


FORMS = [(name, form) for name in ON_DISK for form in range(len(next(iter(load_manifest(name).templates.values()))))]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_it_finds_its_own_layout(tmp_path: Path, name: str, form: int) -> None:
    manifest = load_manifest(name)
    scenes = _make(tmp_path, name, form) * (3 if manifest.video else 1)
    found = find_all(manifest, str(tmp_path), own_task(manifest), labels=True)
    assert (len(found.pairs), found.scenes, found.ignored, found.unpaired) == (scenes, scenes, 0, ())
    assert sum(found.splits.values()) == scenes
    assert [p.key for p in found.pairs] == sorted((p.key for p in found.pairs), key=natural)
    assert len({p.key for p in found.pairs}) == scenes
    ref = found.pairs[0]
    for image in ("labels", "boxes", "prompts"):
        assert (image in ref.sources) == bool(getattr(manifest, image))
    pair = read_pair(replace(ref, sources={image: path for image, path in ref.sources.items() if image != "labels"}))
    assert bool(pair.boxes) == bool(manifest.boxes) and bool(pair.instruction) == bool(manifest.prompts)
    assert (pair.gt is not None) == bool(manifest.gt)
    assert not manifest.video or len({p.scene for p in found.pairs}) == len({p.key.split("/")[0] for p in found.pairs})
    if manifest.sequence:
        assert pair.a.mean() < pair.b.mean()


@pytest.mark.parametrize("name", NAMES)
def test_what_it_names_exists(name: str) -> None:
    manifest = load_manifest(name)
    prints = read_toml(resource_dir("manifests") / "fingerprints.toml")
    assert all(other in NAMES and prints[other] for other in manifest.like)
    assert manifest.same_as in ("", *NAMES)
    assert set(manifest.counts) <= {"all", *manifest.splits, *manifest.parts}


@pytest.mark.parametrize("name", NAMES)
def test_a_typo_in_it_is_named(tmp_path: Path, name: str) -> None:
    text = (resource_dir("manifests/datasets") / f"{name}.toml").read_text()
    path = tmp_path / f"{name}.toml"
    path.write_text(text + '\nlicense = "MIT"\n')
    with pytest.raises(UserError) as error:
        load_manifest(name, path)
    assert str(error.value).startswith(f"{path}: unknown key 'license': did you mean 'licence'?")
