"""What stands beside a pair's pictures: prompts, boxes, label maps; and frames of videos and sequences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.labels import Box
from clearfuse.synth.datasets.manifest import Manifest, load_manifest
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.review.verify import verify
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import BadPair, UserError
from clearfuse.train.pipeline.pictures.find import find_data
from clearfuse.train.pipeline.pictures.jobs import Files
from conftest import Ran, save, textured

Run = Callable[..., Ran]
LINES = ["  take away   the strong haze ", "", "the visible image is hazy: clear it", "a third wish"]


def pair(root: Path, seed: int, **at: str) -> None:
    """A picture for each image of a pair, at its path below a folder."""
    for i, (image, path) in enumerate(at.items()):
        save(root / path, textured(10 * seed + i, 96, 80, channels=1 if image.endswith("b") else 3))


def control(root: Path, part: str = "VI_Haze/VI_Haze_extreme", numbers: tuple[int, ...] = (1, 2, 3, 4)) -> Path:
    """A folder in ControlFusion's layout, with prompts a line."""
    at = root / "WYD_TextDataset" / part / "train"
    for k in numbers:
        names = {"a": "Visible_gt", "b": "Infrared_gt", "degraded_a": "Visible", "degraded_b": "Infrared"}
        pair(at, k, **{image: f"{folder}/{k}.png" for image, folder in names.items()})
    (at / "text.txt").write_text("\n".join(LINES), encoding="utf-8")
    return root


def prompts(folder: Path) -> dict[str, str]:
    """The prompts of a build, by pair."""
    samples = (sample for shard in sorted(folder.glob("*.tar")) for sample in read_samples(shard))
    return {sample.meta.pair: sample.prompt for sample in samples}


def made(out: Path, data: str, task: str = "vif", **options: Any) -> Path:
    """The folder of a build."""
    build(task, data=data, out=str(out), codec="png", workers=1, executor="serial", **options)
    return out


def test_a_line_of_the_parts_own_prompts_is_the_pairs(tmp_path: Path) -> None:
    """Drawn by the key: the same in every build, and not one for all."""
    control(tmp_path / "data")
    control(tmp_path / "data", "VI_Rain_Haze", (1,))
    (tmp_path / "data/WYD_TextDataset/VI_Rain_Haze/train/text.txt").unlink()
    found = find_all(load_manifest("controlfusion"), str(tmp_path / "data"), "vif")
    assert (len(found.pairs), found.ignored, found.unpaired) == (5, 0, ())
    said = {ref.key: read_pair(ref).instruction for ref in found.pairs}
    assert said.pop("rain_haze-1") == "", "a part without the file has none"
    assert set(said.values()) <= {" ".join(line.split()) for line in LINES if line} and len(set(said.values())) > 1
    assert {ref.degradation for ref in found.pairs} == {(("haze", "a"),), (("haze", "a"), ("rain", "a"))}


@pytest.mark.slow
def test_a_build_packs_the_sets_own_prompts(tmp_path: Path) -> None:
    control(tmp_path / "data")
    control(tmp_path / "data", "VI_Rain_Haze", (1,))
    (tmp_path / "data/WYD_TextDataset/VI_Rain_Haze/train/text.txt").unlink()
    pairs = find_all(load_manifest("controlfusion"), str(tmp_path / "data"), "vif").pairs
    said = {ref.key: read_pair(ref).instruction for ref in pairs if "prompts" in ref.sources}
    out = made(tmp_path / "out", f"controlfusion={tmp_path / 'data'}")
    packed = prompts(out)
    assert {key: packed[key] for key in said} == said and "haze" in packed["rain_haze-1"], "the last is composed"
    assert not verify([str(out)], replay=True).problems
    other = made(tmp_path / "other", f"controlfusion={tmp_path / 'data'}", variants=2, seed=5)
    assert prompts(other).items() >= said.items()


def test_a_caption_is_one_line_and_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    for k in (1, 2):
        at = {"a": "gt_vi", "b": "gt_ir", "degraded_a": "vi", "degraded_b": "ir"}
        pair(tmp_path / "train", k, **{image: f"{folder}/{k}.png" for image, folder in at.items()})
    captions = tmp_path / "train/Text/caption"
    captions.mkdir(parents=True)
    (captions / "1.txt").write_text("a road\nin heavy rain\n")
    one, two = find_all(load_manifest("awmm-text"), str(tmp_path), "vif").pairs
    assert read_pair(one).instruction == "a road in heavy rain" and len(read_pair(one).sha256["prompts"]) == 64
    assert "prompts" not in two.sources and read_pair(two).instruction == ""
    for content, reason in ((b"\xff\xfe\x00", "1.txt: is no text in UTF-8"), (b" \n", "1.txt: is empty")):
        (captions / "1.txt").write_bytes(content)
        with pytest.raises(BadPair, match=reason):
            read_pair(one)


@pytest.fixture
def ivoe(tmp_path: Path) -> Path:
    """Two pairs in IVOE's layout, of 96x80."""
    root = tmp_path / "IVOE"
    for k in (1, 2):
        pair(root / "test", k, a=f"vi/FLIR_{k}.png", b=f"ir/FLIR_{k}.png")
        ids = np.zeros((80, 96, 1), np.uint8)
        ids[10:20, 10:40] = k
        save(root / f"test/Segmentation_labels/FLIR_{k}.png", ids)
        save(root / f"test/Segmentation_visualize/FLIR_{k}.png", textured(k, 96, 80))
        (root / "test/Detect").mkdir(exist_ok=True)
    (root / "test/Detect/FLIR_1.txt").write_text("0 0.5 0.25 0.25 0.5\n2 0.125 0.5 0.25 0.1\n")
    (root / "test/Detect/FLIR_2.txt").write_text("")
    return root


def test_boxes_and_label_maps_are_read_where_asked_for(ivoe: Path, tmp_path: Path) -> None:
    manifest = load_manifest("ivoe")
    plain = find_all(manifest, str(ivoe), "vif")
    assert all(set(ref.sources) == {"a", "b"} for ref in plain.pairs) and plain.splits == {"test": 2}
    one, two = (read_pair(ref) for ref in find_all(manifest, str(ivoe), "vif", labels=True).pairs)
    assert one.boxes == (Box("person", 36, 0, 24, 40), Box("car", 0, 36, 24, 8)) and two.boxes == ()
    assert one.labels is not None and one.labels.shown() == ["person"]
    assert two.labels is not None and two.labels.shown() == ["bicycle"]
    (shard,) = made(tmp_path / "out", f"ivoe={ivoe}", split="test").glob("*.tar")
    steps = [[(step.op, step.target) for step in sample.meta.steps] for sample in read_samples(shard)]
    assert steps == [[("high_exposure", "a")]] * 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("3 0.5 0.5 0.1 0.1", "FLIR_1.txt, line 2: class 3 has no name: there are 0, 1, 2"),
        (
            "1 0.5 0.5 0.1",
            "FLIR_1.txt, line 2: is no box, which is a class and four shares of the picture: 1 0.5 0.5 0.1",
        ),
        ("1 0.9 0.5 0.5 0.1", "FLIR_1.txt, line 2: the box is not in the picture: 1 0.9 0.5 0.5 0.1"),
        ("1 0.5 nan 0.5 0.1", "FLIR_1.txt, line 2: the box is not in the picture: 1 0.5 nan 0.5 0.1"),
    ],
)
def test_check_counts_boxes_and_names_a_wrong_one(ivoe: Path, synth: Run, line: str, reason: str) -> None:
    (ivoe / "test/Detect/FLIR_1.txt").write_text(f"0 0.5 0.5 1 1\n{line}\n")
    done = synth("datasets", "check", f"ivoe={ivoe}", "--json")
    told = json.loads(done.out)
    assert done.code == 1 and (told["sets"]["ivoe"]["boxes"], told["sets"]["ivoe"]["labels"]) == (2, 2)
    assert [one["detail"] for one in told["problems"] if one["check"] == "unreadable"] == [reason]


def clips(root: Path, folders: tuple[str, ...] = ("visible_Enhance", "infrared_Enhance")) -> Path:
    """Three clips of four frames, numbered as video2img.py of M3SVD does."""
    for k, clip in enumerate(("0111_1716", "0112_1705", "1230_1154")):
        for frame in range(1, 5):
            at = {image: f"{folder}/{clip}/{frame:06d}.png" for image, folder in zip("ab", folders, strict=True)}
            pair(root, 4 * k + frame, **at)
    return root


def test_a_pair_of_a_video_is_a_frame_and_a_clip_has_one_split(tmp_path: Path) -> None:
    clips(tmp_path / "set/train")
    clips(tmp_path / "set/train", ("visible_Blur", "infrared_noise"))
    (tmp_path / "set/train/visible_Blur/1230_1154/000003.png").unlink()
    found = find_all(load_manifest("m3svd"), str(tmp_path / "set"), "vif")
    assert len(found.pairs) == 11 and len(found.unpaired) == 3 and found.pairs[0].key == "0111_1716/000001"
    assert {ref.scene for ref in found.pairs} == {f"m3svd/{n}" for n in ("0111_1716", "0112_1705", "1230_1154")}
    assert found.pairs[0].degradation == (("motion_blur", "a"), ("ir_stripes", "b"))
    own = Manifest(schema=1, task="vif", a="v/{key}/{frame}.*", b="i/{key}/{frame}.*")  # type: ignore[arg-type]
    clips(tmp_path / "own", ("v", "i"))
    drawn = find_all(own, str(tmp_path / "own"), "vif").pairs
    by_clip = {ref.key.split("/")[0]: {one.split for one in drawn if one.scene == ref.scene} for ref in drawn}
    assert len(drawn) == 12 and len(by_clip) == 3 and all(len(splits) == 1 for splits in by_clip.values())


def test_frames_of_a_video_are_built_and_fused_to_folders_by_clip(tmp_path: Path) -> None:
    clips(tmp_path / "set/Video/test", ("visible", "infrared"))
    data = f"m3svd-clean={tmp_path / 'set'}"
    out = made(tmp_path / "out", data, split="test", n="1", limit=2)
    assert all(key.count("/") == 1 for key in prompts(out)) and not verify([str(out)], replay=True).problems
    jobs = find_data([data], None, tmp_path / "fused", "test", 3, None)
    targets = [job.target.relative_to(tmp_path / "fused").as_posix() for job in jobs]
    assert targets == [f"0111_1716/00000{k}.png" for k in (1, 2, 3)]


def raim(root: Path) -> Path:
    """RAIM-HDR: seven exposures and HDR.jpg for training, five exposures alone for the test."""
    scene = textured(3, 96, 80).astype(float)
    for split, frames in (("train", range(7)), ("test", range(1, 6))):
        for k in frames:
            save(root / split / "001" / f"{k}.jpg", (scene * (0.1 + 0.12 * k)).astype(np.uint8))
    save(root / "train/001/HDR.jpg", (scene * 0.9).astype(np.uint8))
    return root


def test_the_truth_beside_numbered_frames_is_no_frame(tmp_path: Path) -> None:
    raim(tmp_path)
    found = find_all(load_manifest("raim-hdr"), str(tmp_path), "mef")
    assert (found.ignored, found.unpaired, found.splits) == (0, (), {"train": 1, "test": 1})
    names = {ref.split: {image: Path(path).name for image, path in ref.sources.items()} for ref in found.pairs}
    assert names["train"] == {"a": "0.jpg", "b": "6.jpg", "gt": "HDR.jpg"}
    assert names["test"] == {"a": "1.jpg", "b": "5.jpg"}
    assert len(find_all(load_manifest("raim-hdr"), str(tmp_path), "mef", "all").pairs) == 21 + 10
    data = [f"raim-hdr={tmp_path}"]
    for split, frames in (("train", range(7)), ("test", range(1, 6))):
        (stack,) = find_data(data, None, tmp_path / "fused", split, None, None, stacks=True)
        assert isinstance(stack, Files) and [Path(path).name for path in stack.paths] == [f"{k}.jpg" for k in frames]
    with pytest.raises(UserError, match=r"two pairs would both be .*001.png: name a split by --split"):
        find_data(data, None, tmp_path / "fused", None, None, None)


@pytest.mark.slow
def test_a_sequence_is_built_with_its_own_truth(tmp_path: Path) -> None:
    raim(tmp_path)
    out = made(tmp_path / "out", f"raim-hdr={tmp_path}", "mef", n="1", depth="prior")
    (sample,) = read_samples(next(out.glob("*.tar")))
    assert sample.meta.fuser.name == "dataset" and "gt" in sample.meta.sources


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"boxes": "x/{key}.txt"}, "boxes go with box_classes"),
        ({"box_classes": {"0": "car"}}, "boxes go with box_classes"),
        ({"a": "v/{key}/{frame}.*"}, "b must be a path template with {key} and {frame} in it"),
        ({"prompts": ["t/{key}.txt", "t.txt"]}, "prompts: all with {key}, one of a pair, or all without"),
        ({"a": [], "b": [], "sequence": "{key}/{frame}.*", "prompts": "t.txt"}, "prompts goes with a and b"),
    ],
)
def test_a_page_that_does_not_fit_is_refused(more: dict[str, Any], reason: str) -> None:
    plain = {"schema": 1, "task": "vif", "a": "v/{key}.*", "b": "i/{key}.*"}
    with pytest.raises(ValueError, match=reason.replace("{", r"\{")):
        Manifest.model_validate(plain | more)
