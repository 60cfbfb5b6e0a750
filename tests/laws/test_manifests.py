"""Laws over every manifest: loads, is complete, and finds a made folder in its own layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import save, textured

from synth.pairs import find_pairs, load_manifest, natural, read_pair
from synth.resources import resource_dir, resource_names
from synth.types import TASKS, PairRef, UserError

NAMES = resource_names("manifests/datasets")
ON_DISK = [name for name in NAMES if not load_manifest(name).builtin and name != "folder"]


@pytest.mark.parametrize("name", NAMES)
def test_it_states_what_a_user_must_know(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.title and manifest.licence
    assert manifest.task in (*TASKS, "any")
    assert manifest.builtin or name == "folder" or (manifest.citation and manifest.url.startswith("https://"))


@pytest.mark.parametrize("name", ON_DISK)
def test_it_finds_its_own_layout(tmp_path: Path, name: str) -> None:
    manifest = load_manifest(name)
    templates = [template for template in (manifest.a, manifest.b, manifest.gt) if template]
    folders = list(manifest.splits.values()) or [""]
    for k, key in enumerate(("1", "2", "10")):
        for folder in folders:
            for i, template in enumerate(templates):
                path = template.replace("{key}", f"{key}{folder}").replace("{split}", folder).replace(".*", ".png")
                save(tmp_path / path, textured(10 * k + i, 80, 64))
    found = [_pairs(name, tmp_path, split) for split in ("train", "val", "test")]
    assert sum(map(len, found)) == 3 * len(folders)
    for pairs in found:
        assert [p.key for p in pairs] == sorted((p.key for p in pairs), key=natural)
    pair = read_pair(next(p for pairs in found for p in pairs))
    assert (pair.gt is not None) == bool(manifest.gt)


def _pairs(name: str, root: Path, split: str) -> tuple[PairRef, ...]:
    manifest = load_manifest(name)
    task = "vif" if manifest.task == "any" else manifest.task
    try:
        return find_pairs(manifest, str(root), task, split).pairs  # type: ignore[arg-type]
    except UserError as error:
        assert "no split" in str(error) or "no pair in split" in str(error)
        return ()


@pytest.mark.parametrize("name", NAMES)
def test_a_typo_in_it_is_named(tmp_path: Path, name: str) -> None:
    text = (resource_dir("manifests/datasets") / f"{name}.toml").read_text()
    path = tmp_path / f"{name}.toml"
    path.write_text(text + '\nlicense = "MIT"\n')
    with pytest.raises(UserError) as error:
        load_manifest(name, path)
    assert str(error.value).startswith(f"{path}: unknown key 'license': did you mean 'licence'?")
