"""Detectors and segmenters on fused images: from the command line to the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.labels import Box
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_image, read_pair
from clearfuse.synth.scenes import CLASSES, OBJECTS, make_scene
from clearfuse.synth.types import BadPair, UserError
from clearfuse.train.downstream.batches import Batches, Crop
from clearfuse.train.downstream.fit import RECORD, fit, rate_at, read_fitted
from clearfuse.train.downstream.iou import class_iou, confusion, mean_iou
from clearfuse.train.downstream.networks import Preparation, make_network, write_network
from clearfuse.train.downstream.pictures import Pictures
from clearfuse.train.downstream.scores import order_of
from clearfuse.train.downstream.sources import find_source
from conftest import Ran, save, textured

Downstream = Callable[..., Ran]
VOC = """<annotation><filename>{name}.png</filename><size><width>96</width><height>80</height></size>
<object><name>People</name><difficult>0</difficult>
<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>
<object><name>Truck</name><difficult>1</difficult>
<bndbox><xmin>50</xmin><ymin>5</ymin><xmax>96</xmax><ymax>30</ymax></bndbox></object></annotation>"""


@pytest.fixture
def downstream(train: Callable[..., Ran]) -> Downstream:
    """Run ``train downstream`` in this process, which ends with ``code``."""

    def run(*args: str | Path, code: int = 0) -> Ran:
        done = train("downstream", *args)
        assert done.code == code, done.err
        return done

    return run


@pytest.fixture
def m3fd(tmp_path: Path) -> Path:
    """Four pairs in the layout of M3FD's detection set, of which one has no boxes, and one a box outside."""
    root = tmp_path / "M3FD_Detection"
    for k in range(4):
        save(root / f"Vis/0000{k}.png", textured(k, 96, 80))
        save(root / f"Ir/0000{k}.png", textured(10 + k, 96, 80, channels=1))
        (root / "Annotation").mkdir(exist_ok=True)
        if k < 3:
            (root / f"Annotation/0000{k}.xml").write_text(
                VOC.format(name=k).replace("96</xmax>", f"{96 + 9 * (k > 1)}</xmax>")
            )
    return root


@pytest.fixture
def msrs(tmp_path: Path) -> Path:
    """Two training and two test pairs in MSRS's layout: a car in each, the rest the background."""
    root = tmp_path / "MSRS"
    for split in ("train", "test"):
        for k in range(2):
            image, heat = textured(k, 96, 80), textured(10 + k, 96, 80, channels=1)
            ids = np.zeros((80, 96, 1), np.uint8)
            ids[20:50, 30:70] = 1
            image[20:50, 30:70], heat[20:50, 30:70] = (250, 30, 30), 220
            for folder, one in (("vi", image), ("ir", heat), ("Segmentation_labels", ids)):
                save(root / split / folder / f"0000{k}D.png", one)
    return root


def test_boxes_of_pascal_voc(m3fd: Path) -> None:
    found = find_all(load_manifest("m3fd"), str(m3fd), "vif", labels=True)
    first, _, outside, bare = found.pairs
    assert read_pair(first).boxes == (Box("person", 10, 20, 30, 40), Box("truck", 50, 5, 46, 25, True))
    assert "boxes" not in bare.sources
    with pytest.raises(BadPair, match=r"00002.xml, object 2: the box is not in the picture: 50 5 105 30"):
        read_pair(outside)
    at = m3fd / "Annotation/00000.xml"
    for text, why in (
        ("<annotation><object><name>Dog", "00000.xml: is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "00000.xml: is no annotation of Pascal VOC"),
        (VOC.replace("People", "Dog"), "00000.xml, object 1: class Dog has no name: there are People, Car"),
        (VOC.replace("<xmin>10</xmin>", ""), "00000.xml, object 1: has no bndbox of four numbers"),
    ):
        at.write_text(text)
        with pytest.raises(BadPair, match=why):
            read_pair(first)


def test_annotations_of_all_splits_in_one_folder(tmp_path: Path) -> None:
    """LLVIP's."""
    for split, key in (("train", "010001"), ("test", "190001")):
        save(tmp_path / f"visible/{split}/{key}.jpg", textured(1, 96, 80))
        save(tmp_path / f"infrared/{split}/{key}.jpg", textured(2, 96, 80, channels=1))
    (tmp_path / "Annotations").mkdir()
    one = VOC.replace("People", "person").replace("Truck", "person")
    (tmp_path / "Annotations/190001.xml").write_text(one.replace("<xmin>10<", "<xmin>12<"))
    found = {ref.key: ref for ref in find_all(load_manifest("llvip"), str(tmp_path), "vif", labels=True).pairs}
    assert "boxes" not in found["010001"].sources and read_pair(found["190001"]).boxes[0] == Box(
        "person", 12, 20, 28, 40
    )


@pytest.mark.slow
def test_objects_of_built_in_scenes_are_told_apart() -> None:
    """Each pixel of a person or car is of one object, of one class; and boxes hug what is seen of it."""
    scene = make_scene(5, (320, 240), "street", night=False)
    shows = np.isin(scene.classes, [CLASSES.index(name) for name in OBJECTS])
    assert np.array_equal(scene.objects > 0, shows) and scene.objects.max() > 3
    for number in np.unique(scene.objects[shows]):
        assert len(np.unique(scene.classes[scene.objects == number])) == 1
    source = find_source("detection", task="vif", split="test", limit=1)
    pair = read_pair(source.pairs[0])
    assert pair.labels is not None and {box.name for box in pair.boxes} <= set(OBJECTS)
    for box in pair.boxes:
        left, top, right, bottom = (int(v) for v in (box.left, box.top, box.left + box.width, box.top + box.height))
        inside = pair.labels.mask(box.name)[top:bottom, left:right]
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_iou_of_maps_made_by_hand() -> None:
    there = np.array([[0, 0, 1, 255], [0, 2, 1, 255]], np.uint8)
    found = np.array([[0, 1, 1, 0], [0, 0, 1, 1]], np.uint8)
    counts = confusion(found, there, 4)
    assert counts.sum() == 6 and class_iou(counts)[:3].tolist() == [2 / 4, 2 / 3, 0] and np.isnan(class_iou(counts)[3])
    assert mean_iou(counts) == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_crops_carry_their_boxes(tmp_path: Path) -> None:
    """A white box in a black picture: wherever the crop lies, the box's label is where the white is."""
    image = np.zeros((80, 96, 3), np.uint8)
    image[20:50, 30:70] = 255
    save(tmp_path / "pyramid/k.png", image)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/k.json").write_text(json.dumps([["car", 30, 20, 40, 30, False]]))
    pictures = Pictures(tmp_path, "detection", ("pyramid",), ("k",), {})
    batches = Batches(pictures, ("person", "car"), Preparation((160, 192)), 1, 3)
    mirrored = set[bool]()
    for position in range(12):
        shown, label = batches.one(position)
        ((x, y, width, height),) = label["boxes"].tolist()
        rows, columns = np.nonzero(shown[..., 0] > 127)
        seen = [(columns.min() + columns.max() + 1) / 2 / 192, (rows.min() + rows.max() + 1) / 2 / 160]
        assert [x, y] == pytest.approx(seen, abs=0.02) and label["class_labels"].tolist() == [1]
        assert [width, height] == pytest.approx([np.ptp(columns) / 192, np.ptp(rows) / 160], abs=0.03)
        mirrored.add(x > 0.5)
    assert len(mirrored) == 2
    assert Crop(10, 0, 20, 80, True).of(image)[0].shape == (20, 3)
    one, again = batches.one(5), batches.one(5)
    assert np.array_equal(one[0], again[0]) and torch.equal(one[1]["boxes"], again[1]["boxes"])


def test_the_rate_rises_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 5, 100) for step in range(101)]
    assert rates[4] == 1 and rates[-1] == 0 and np.argmax(rates) in (4, 5) and min(rates[:100]) > 0
    assert order_of([0.5, float("nan"), 0.7, 0.50001, 0.1]) == [2, 0, 1, 2, 0]


@pytest.mark.slow
def test_detection_from_fit_to_report(downstream: Downstream, m3fd: Path, tmp_path: Path) -> None:
    """On a set with one unusable pair and one without boxes: both are said, and the rest goes through."""
    (tmp_path / "keys.txt").write_text("00000.png\n00001.png\n00002.png\n00003.png\n")
    data = ("--data", f"m3fd={m3fd}", "--keys", tmp_path / "keys.txt", "--workers", "1")
    net = tmp_path / "net"
    done = downstream(
        "fit", "--kind", "detection", *data, "--steps", "2", "--batch", "2", "--size", "96", "64",
        "--out", net, "--json",
    )  # fmt: skip
    record = json.loads(done.out)
    assert record["classes"] == ["person", "car", "bus", "lamp", "motorcycle", "truck"]
    assert (record["images"], record["left_out"], record["model"], record["steps"]) == (2, 1, "tiny", 2)
    assert "1 of 4 pairs have no boxes" in done.err
    names = {path.name for path in net.iterdir()}
    assert names == {"config.json", "preprocessor_config.json", "model.safetensors", RECORD, "pictures"}
    again = downstream("fit", "--kind", "detection", *data, "--out", net, code=2)
    assert "holds a fitted network: give --overwrite" in again.err
    theirs = tmp_path / "theirs"
    for key in ("00000", "00001"):
        save(theirs / f"{key}.png", textured(3, 96, 80))
    out = tmp_path / "report"
    told = downstream(
        "eval", net, *data, "--method", "a", "--method", "b", "--method", "pyramid",
        "--results", f"Theirs={theirs}", "--out", out, "--examples", "1",
    )  # fmt: skip
    assert "Detection, AP by class" in told.out and "Theirs" in told.out
    report = json.loads((out / "report.json").read_bytes())
    assert list(report["methods"]) == ["a", "b", "pyramid", "Theirs"] and report["pairs"] == 2
    assert list(report["left_out"]) == ["00002"] and report["methods"]["a"]["classes"]["bus"] is None
    rows = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert {(row["method"], row["measure"]) for row in rows} >= {("Theirs", "AP"), ("a", "APs")}
    assert r"\begin{tabular}" in (out / "report.tex").read_text() and "| Theirs |" in (out / "report.md").read_text()
    truth = json.loads((out / "coco/truth.json").read_bytes())
    assert [one["iscrowd"] for one in truth["annotations"]] == [0, 1, 0, 1] and len(truth["images"]) == 2
    assert len(json.loads((out / "coco/Theirs.json").read_bytes())) == 2 * 100
    assert read_image(str(out / "examples/00000.png"))[0].shape[1] > 4 * 96
    (theirs / "00001.png").unlink()
    missing = downstream("eval", net, *data, "--results", f"Other={theirs}", "--out", tmp_path / "no", code=1)
    assert "Other: has no image of pair 00001" in missing.err and not (tmp_path / "no/report.md").exists()


@pytest.mark.slow
def test_segmentation_learns_and_goes_on_where_it_was_killed(
    downstream: Downstream, msrs: Path, tmp_path: Path
) -> None:
    """A red car before a texture is found after some steps; the same call gives the same weights."""
    nets = [tmp_path / "one", tmp_path / "two"]
    for net in nets:
        downstream(
            "fit", "--kind", "segmentation", "--data", f"msrs={msrs}", "--steps", "40",
            "--batch", "2", "--size", "96", "64", "--lr", "3e-3", "--workers", "1", "--out", net,
        )  # fmt: skip
    assert (nets[0] / "model.safetensors").read_bytes() == (nets[1] / "model.safetensors").read_bytes()
    out = tmp_path / "report"
    call = ("eval", nets[0], "--data", f"msrs={msrs}", "--out", out, "--workers", "1")
    downstream(*call)
    report = json.loads((out / "report.json").read_bytes())
    assert report["methods"]["pyramid"]["classes"]["background"] > 0.8 and report["methods"]["pyramid"]["mIoU"] > 0.5
    assert report["methods"]["pyramid"]["classes"]["bump"] is None, "of no class that is nowhere"
    made = out / "pictures/pyramid/00000D.png"
    before = made.stat().st_mtime_ns
    (out / "pictures/pyramid/00001D.png").unlink()
    downstream(*call, "--method", "pyramid")
    assert made.stat().st_mtime_ns == before and json.loads((out / "report.json").read_bytes())["pairs"] == 2
    other = downstream(*call, "--seed", "3", code=2)
    assert "holds pictures made otherwise: seed was 0, is 3" in other.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--n", "2"), "--n 2: goes with --recipe"),
        (("--method", "classical"), "--method classical: undoes what a recipe did: goes with --recipe"),
        (("--data", "roadscene={data}"), "no pair of split 'train' has boxes: its manifest names no boxes"),
        (("--model", "tinny"), "unknown model 'tinny': did you mean 'tiny'?"),
        (("--model", "{data}"), "model*.safetensors* is missing in"),
        (("--keys", "{data}/none.txt"), "none.txt: cannot be read: No such file or directory"),
        (("--size", "8", "640"), "--size"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    downstream: Downstream, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    data = tmp_path / "data"
    for k in range(12):
        save(data / f"crop_LR_visible/FLIR_{k}.jpg", textured(k, 96, 80))
        save(data / f"cropinfrared/FLIR_{k}.jpg", textured(k + 20, 96, 80, channels=1))
    given = [one.format(data=data) for one in arguments]
    out = tmp_path / "out"
    done = downstream("fit", "--kind", "detection", "--limit", "4", "--out", out, *given, code=2)
    assert said in done.err and not out.exists()


@pytest.mark.slow
def test_a_network_of_others_is_fitted_anew_but_for_its_last_layers(tmp_path: Path) -> None:
    """By folder; its own size and way of seeing are kept, a pickle is not read, and another kind is refused."""
    for kind in ("detection", "segmentation"):
        theirs = make_network(kind, "tiny", ("a", "b", "c"), 0)
        folder = tmp_path / kind
        folder.mkdir()
        write_network(theirs, folder)
        ours = make_network(kind, str(folder), ("person", "car"), 0)
        assert 0 < len(ours.fresh) < len(theirs.fresh) // 4 and ours.preparation == theirs.preparation
        kept = set(theirs.module.state_dict()) - set(ours.fresh)
        mine = ours.module.state_dict()
        assert all(torch.equal(mine[name], theirs.module.state_dict()[name]) for name in kept)
        assert ours.module.config.id2label == {0: "person", 1: "car"}
        with pytest.raises(UserError, match=r"is no network for|of a network for"):
            make_network("segmentation" if kind == "detection" else "detection", str(folder), ("person",), 0)
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=r"model\*.safetensors\* is missing"):
            make_network(kind, str(folder), ("person",), 0)


@pytest.mark.slow
def test_rt_detr_is_fitted_and_read_again(m3fd: Path, tmp_path: Path) -> None:
    """A small one of its class by folder, as a published one would be: its own loss, boxes and noisy copies."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_indices=[2, 3, 4]
    )
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[8, 8, 8], encoder_hidden_dim=16, encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, num_queries=20,
        decoder_layers=1, decoder_attention_heads=2, num_denoising=8, num_labels=80,
    )  # fmt: skip
    theirs = tmp_path / "rt-detr"
    RTDetrForObjectDetection(config).save_pretrained(theirs)
    (theirs / "preprocessor_config.json").write_text('{"do_normalize": false, "size": {"height": 64, "width": 96}}')
    source = find_source("detection", task="vif", data=(f"m3fd={m3fd}",), keys=("00000", "00001"))
    done = fit(source, str(tmp_path / "net"), model=str(theirs), steps=2, batch=2, workers=1)
    network, record = read_fitted(str(done.out))
    assert record.model == str(theirs) and record.lr == 1e-4 and network.preparation == Preparation((64, 96))
    (found,) = network.detect([textured(1, 200, 100)])
    assert len(found.scores) == 100 and (np.diff(found.scores) <= 0).all() and found.classes.max() < 6
    low, high = found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]
    assert (low >= 0).all() and (high <= np.array([200, 100])).all()


def test_a_damaged_network_is_named(msrs: Path, tmp_path: Path) -> None:
    source = find_source("segmentation", task="vif", data=(f"msrs={msrs}",), split="train")
    fit(source, str(tmp_path / "net"), steps=1, batch=1, size=(64, 64), workers=1)
    network, record = read_fitted(str(tmp_path / "net"))
    assert network.classes[:2] == ("background", "car") and record.methods == ("pyramid",)
    (tmp_path / "net/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="net: is no network for segmentation"):
        read_fitted(str(tmp_path / "net"))
    with pytest.raises(UserError, match="holds no detector or segmenter"):
        read_fitted(str(tmp_path))
