"""The pipeline: saving and loading, any size, seamless tiles, the hub, and ``train fuse`` on files and folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made import made_shards
from PIL import Image
from tiny import small, small_restorer, untrained, untrained_of
from torch import Tensor

from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.files.pictures import decode
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.samples.chain import degrade
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.types import BadPair, PairRef, UserError, WorkIncomplete
from clearfuse.train.designs.file import read_design
from clearfuse.train.pipeline import fusion as module
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.weights.tensors import read_tensors, write_tensors
from conftest import Ran, save, textured

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    untrained().save_pretrained(path)
    return path


@pytest.mark.parametrize(("flow", "guess"), [(False, False), (False, True), (True, False), (True, True)])
def test_saved_and_loaded_is_the_same(tmp_path: Path, flow: bool, guess: bool) -> None:
    one = untrained(flow, guess)
    one.save_pretrained(tmp_path)
    other = FusionPipeline.from_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "pipeline.json"]
    assert other.design == one.design
    a, b = textured(1), textured(2, channels=1)
    first = one(a, b, task="vif", prompt="remove the haze")
    assert first.dtype == np.uint8 and first.shape == a.shape
    np.testing.assert_array_equal(first, other(a, b[..., 0], task="vif", prompt="remove the haze"))
    assert (first != other(a, b, task="vif", prompt="suppress the noise in both frames")).any()


def test_a_file_that_calls_the_guess_a_prior_is_read(tmp_path: Path) -> None:
    one = untrained(guess=True)
    one.save_pretrained(tmp_path)
    text = (tmp_path / "pipeline.json").read_text()
    assert text.count('"guess"') == 2 and "prior" not in text
    (tmp_path / "pipeline.json").write_text(text.replace('"guess"', '"prior"'))
    assert FusionPipeline.from_pretrained(tmp_path).design == one.design


@pytest.mark.parametrize("size", [(16, 16), (9, 130), (1, 1), (33, 47), (7, 300)])
def test_any_size(folder: Path, size: tuple[int, int]) -> None:
    image = textured(1, 304, 160)[: size[0], : size[1]]
    assert FusionPipeline.from_pretrained(folder)(image, image, task="mef").shape == image.shape


def test_a_flow_model_has_seeds_steps_and_samplers(tmp_path: Path) -> None:
    flow, a, b = untrained(flow=True), textured(1), textured(2)
    runs = [flow(a, b, task="mff", **more) for more in ({}, {"seed": 1}, {"steps": 4}, {"sampler": "midpoint"})]
    np.testing.assert_array_equal(runs[0], flow(a, b, task="mff"))
    assert all((runs[0] != other).any() for other in runs[1:])
    with pytest.raises(UserError, match="unknown sampler 'eluer': did you mean 'euler'"):
        flow(a, b, task="mff", sampler="eluer")
    with pytest.raises(UserError, match=r"sampling: steps = 0: must be in \[1, 100000\]"):
        flow(a, b, task="mff", steps=0)
    with pytest.raises(UserError, match="--steps: the model is a regression"):
        untrained()(a, b, task="mff", steps=3)


def test_mistakes_are_named(folder: Path) -> None:
    pipeline = FusionPipeline.from_pretrained(folder)
    with pytest.raises(UserError, match="the two images differ in size: 160x128 and 160x127"):
        pipeline(textured(1), textured(1)[1:], task="vif")
    with pytest.raises(UserError, match="unknown task 'viff': did you mean 'vif'"):
        pipeline(textured(1), textured(1), task="viff")
    with pytest.raises(ValueError, match="an image is uint8"):
        pipeline(textured(1).astype(np.uint16), textured(1), task="vif")


def test_a_flow_is_sampled_as_asked(train: Train, tmp_path: Path) -> None:
    """Sampler, steps and guidance change the image; invalid options give one line and exit code 2."""
    pipeline, images = untrained(flow=True), (textured(1), textured(2))
    own = pipeline(*images, task="vif")
    for way in ({"sampler": "heun"}, {"sampler": "sde"}, {"steps": 3}):
        assert abs(pipeline(*images, task="vif", **way).astype(int) - own).max() > 0, way
    assert (pipeline(*images, task="vif", sampler="ab2", steps=2) == own).all()
    pipeline.save_pretrained(tmp_path)
    given = [save(tmp_path / f"{i}.png", image) for i, image in enumerate(images)]
    for option, said in (
        (("--sampler", "heum"), "unknown sampler 'heum': did you mean 'heun'?"),
        (("--sampler", "i2sb"), "unknown sampler 'i2sb': allowed: ab2, euler"),
        (("--steps", "0"), "--steps 0: must be at least 1"),
        (("--guidance", "2"), "guidance must be 1, not 2.0: the model always had a prompt in training"),
    ):
        ran = train("fuse", *given, "-o", tmp_path / "o.png", "--task", "vif", "--model", tmp_path, *option)
        assert (ran.code, said in ran.error) == (2, True), ran.err
    objective = replace(pipeline.design.objective, drop=0.1)
    pipeline.assembly.design = replace(pipeline.design, objective=objective)
    plain, strong = (pipeline(*images, task="vif", prompt="remove the haze", guidance=s) for s in (1.0, 4.0))
    assert abs(plain.astype(int) - strong).max() > 0


def test_a_strength_says_how_much_is_removed(train: Train, folder: Path, tmp_path: Path) -> None:
    """0 leaves the first guess, 1 is what is done without a dial, and what lies between lies between."""
    pipeline, (a, b) = untrained_of(small_restorer()), (textured(1), textured(2, channels=1))
    made = {s: pipeline(a, b, task="vif", prompt="remove the haze", strength=s).astype(int) for s in (0, 0.5, 1, None)}
    np.testing.assert_array_equal(made[0], PyramidFuser()(a, b, "vif"))
    np.testing.assert_array_equal(made[1], made[None])
    apart = [np.abs(made[s] - made[0]).mean() for s in (0.5, 1)]
    assert 0.2 < apart[0] / apart[1] < 0.8
    pipeline.save_pretrained(tmp_path / "dial")
    files = [save(tmp_path / f"{i}.png", image) for i, image in enumerate((a, b))]
    options = ("--task", "vif", "--prompt", "remove the haze", "-o", tmp_path / "o.png")
    ran = train("fuse", *files, *options, "--model", tmp_path / "dial", "--strength", "0.5")
    assert ran.code == 0, ran.err
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o.png")), made[0.5])
    for model, strength, said in (
        (folder, "0.5", "--strength: the model has no dial: it removes"),
        (tmp_path / "dial", "1.5", "--strength 1.5"),
    ):
        ran = train("fuse", *files, *options, "--model", model, "--strength", strength)
        assert (ran.code, said in ran.error) == (2, True), ran.err
    ran = train("fuse", *files, *options, "--model", folder, "--strength", "1")
    assert ran.code == 0, "all of it is what every model removes"


def test_a_folder_that_is_no_model_is_named(folder: Path, tmp_path: Path) -> None:
    def said(change: Callable[[Path], object]) -> str:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        path.mkdir()
        for name in ("pipeline.json", "model.safetensors"):
            (path / name).write_bytes((folder / name).read_bytes())
        change(path)
        with pytest.raises(UserError) as error:
            FusionPipeline.from_pretrained(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    def edit(path: Path, **changed: object) -> None:
        data = json.loads((path / "pipeline.json").read_text())
        (path / "pipeline.json").write_text(json.dumps(data | changed))

    assert "pipeline.json is missing" in said(lambda p: (p / "pipeline.json").unlink())
    assert "model.safetensors is missing" in said(lambda p: (p / "model.safetensors").unlink())
    assert "is no whole safetensors file" in said(lambda p: (p / "model.safetensors").write_bytes(b"nothing"))
    assert "pipeline.json: not valid JSON: EOF while parsing" in said(lambda p: (p / "pipeline.json").write_text("{"))
    assert "schema 9 is newer" in said(lambda p: edit(p, schema=9))
    assert "unknown model 'mmaiff': did you mean 'mmaif'" in said(lambda p: edit(p, model="mmaiff"))
    assert "pipeline.json: not valid JSON: recursion limit" in said(
        lambda p: (p / "pipeline.json").write_text("[" * 200_000)
    )
    for part, value, words in (
        ("tokenizer", 5, "tokenizer = 5: must be a text"),
        ("tokenizer", "/aaaa" * 2000, "must be a text of 4096 characters at most"),
        ("tokenizer", "a" * 4000, "unknown tokenizer 'aaa"),
        ("text", [], "text = []: must be a text"),
        ("guess", [1], "guess = [1]: allowed: none, pyramid"),
        ("config", None, "config = None: must be a table"),
        ("objective", {}, "objective.kind is missing"),
        ("digests", {"text": 1}, "digests.text = 1: must be a text"),
        ("zz", 1, "unknown key 'zz': allowed: base, config, "),
    ):
        assert words in said(lambda p, part=part, value=value: edit(p, **{part: value}))
    assert "unknown tokenizer 'jpeg'" in said(lambda p: edit(p, tokenizer="jpeg"))
    assert "config: unknown key 'depht': did you mean 'depth'" in said(lambda p: edit(p, config={"depht": 3}))
    assert "config.depth = '3': must be a whole number" in said(lambda p: edit(p, config={"depth": "3"}))
    assert "objective: unknown kind 'guess': did you mean" in said(lambda p: edit(p, objective={"kind": "guess"}))
    assert "unknown guess 'pyrmaid': did you mean 'pyramid'" in said(lambda p: edit(p, guess="pyrmaid"))
    assert "config says otherwise" in said(lambda p: edit(p, guess="pyramid"))
    assert "pipeline.json: model is missing" in said(lambda p: (p / "pipeline.json").write_text('{"schema": 1}'))

    def other(path: Path) -> None:
        tensors, _ = read_tensors(path / "model.safetensors")
        write_tensors(path / "model.safetensors", {f"x.{name}": tensor for name, tensor in tensors.items()}, {})

    assert "model.safetensors: not a checkpoint of the design in pipeline.json: 91 entries missing" in said(other)

    def larger(**fields: int) -> Callable[[Path], None]:
        """The design of a larger network: refused before memory is taken for it, which nobody may have."""

        def change(path: Path) -> None:
            config = json.loads((path / "pipeline.json").read_text())["config"]
            edit(path, config=config | fields)

        return change

    for fields in ({"patch": 192}, {"expert_width": 65_536}):
        assert "entries of another shape, such as network." in said(larger(**fields))
    assert "entries missing, such as network.blocks.2." in said(larger(depth=8))
    assert ": its weights take " in said(larger(patch=65_536))

    def with_eta(value: Tensor) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            tensors, _ = read_tensors(path / "model.safetensors")
            name = next(name for name in tensors if name.endswith("eta.value"))
            write_tensors(path / "model.safetensors", {**tensors, name: value}, {})

        return change

    assert "eta.value holds a number that is NaN" in said(with_eta(torch.full((1,), float("nan"))))
    assert "eta.value is of type bool; must be float16, " in said(with_eta(torch.ones(1, dtype=torch.bool)))
    with pytest.raises(UserError, match="nowhere: no such folder"):
        FusionPipeline.from_pretrained("nowhere")


def test_a_prompt_that_is_cut_is_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline, a, b = FusionPipeline.from_pretrained(folder), textured(1), textured(2)
    for _ in range(2):
        pipeline(a, b, task="vif", prompt="remove the haze " * 40)
    assert capsys.readouterr().err == "the prompt is cut: 'bytes' reads 64 tokens of it\n"
    one = pipeline(a, b, task="vif", prompt="remove the haze")
    np.testing.assert_array_equal(one, pipeline(a, b, task="vif", prompt=" Remove the haze.\n"))
    assert not capsys.readouterr().err


def test_a_result_that_is_not_finite_is_no_picture(folder: Path, tmp_path: Path, train: Train) -> None:
    images = textured(1), textured(2, channels=1)
    pipeline = FusionPipeline.from_pretrained(folder)
    for parameter in pipeline.assembly.network.parameters():
        parameter.data.mul_(1e30)  # finite, and what they make is not
    pipeline.save_pretrained(tmp_path / "model")
    with pytest.raises(WorkIncomplete, match="has values that are not finite"):
        pipeline(*images, task="vif")
    for name, image in zip("ab", images, strict=True):
        (tmp_path / name).mkdir()
        for number in "12":
            save(tmp_path / name / f"{number}.png", image)
    pairs = (tmp_path / "a", tmp_path / "b", "-o", tmp_path / "f")
    ran = train("fuse", *pairs, "--task", "vif", "--model", tmp_path / "model")
    assert (ran.code, "2 of 2 pairs could not be fused: 1.png: the fused image" in ran.error) == (1, True), ran.err
    assert not list((tmp_path / "f").glob("*"))


def test_from_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def download(name: str, **options: object) -> str:
        asked.extend([name, options])
        if name != "lab/fusion":
            raise OSError("You are offline\nand more")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    pipeline = FusionPipeline.from_pretrained("lab/fusion", revision="abc")
    assert pipeline.design.tokenizer == "dct"
    patterns = ["pipeline.json", "model.safetensors", "tokenizer/*", "text/*", "semantics/*", "base/*"]
    patterns += [
        "adapter_config.json",
        "adapter_model.safetensors",
        "*/adapter_config.json",
        "*/adapter_model.safetensors",
    ]
    assert asked == ["lab/fusion", {"revision": "abc", "allow_patterns": patterns}]
    with pytest.raises(UserError, match="lab/other: no such folder, and the Hugging Face hub has none either: You are"):
        FusionPipeline.from_pretrained("lab/other")


def test_a_design_survives_json() -> None:
    for flow in (False, True):
        design = small(flow)
        assert read_design(json.loads(json.dumps(design.to_json())), "here").design() == design


def test_a_large_image_goes_in_tiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = FusionPipeline.from_pretrained(folder)
    a, b = textured(1), textured(2)
    whole = pipeline(a, b, task="vif")
    monkeypatch.setattr(module, "OVERLAP", 32)
    parts = pipeline(a, b, task="vif", tile=96)
    assert parts.shape == whole.shape and abs(parts.astype(int) - whole).mean() < 3


def test_fuse_two_files(train: Train, folder: Path, tmp_path: Path) -> None:
    a, b = save(tmp_path / "vis.png", textured(1)), save(tmp_path / "ir.png", textured(2, channels=1))
    for name in ("out.png", "deep/out.webp", "out.jpg", "out.tif"):
        out = tmp_path / name
        ran = train("fuse", a, b, "-o", out, "--task", "vif", "--prompt", "remove the haze", "--model", folder)
        assert (ran.code, ran.out) == (0, f"fused 1 pair into {out}\n"), ran.err
        with Image.open(out) as image:
            assert image.size == (160, 128) and image.mode == "RGB"
    expected = FusionPipeline.from_pretrained(folder)(
        textured(1), textured(2, channels=1), task="vif", prompt="remove the haze"
    )
    for name in ("out.png", "deep/out.webp", "out.tif"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name).convert("RGB")), expected)


def test_fuse_two_folders(train: Train, folder: Path, tmp_path: Path, folder_pair: str) -> None:
    a, b = folder_pair.split(",")
    ran = train("fuse", a, b, "-o", tmp_path / "out", "--task", "mff", "--model", folder, "--json")
    assert ran.code == 0 and json.loads(ran.out)["fused"] == [str(tmp_path / f"out/{i}.png") for i in range(4)]
    (Path(a) / "1.png").write_bytes(b"no image")
    save(Path(a) / "2.png", textured(2, 64, 64))
    ran = train("fuse", a, b, "-o", tmp_path / "more", "--task", "mff", "--model", folder)
    assert ran.code == 1 and sorted(p.name for p in (tmp_path / "more").iterdir()) == ["0.png", "3.png"]
    assert "2 of 4 pairs could not be fused: 1.png: 1.png: is not an image; 2.png: the two images differ" in ran.error


def test_fuse_mistakes(
    train: Train, folder: Path, tmp_path: Path, folder_pair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", textured(1))
    save(tmp_path / "small.png", textured(1, 64, 64))
    save(tmp_path / "alone/x.png", textured(1))
    near = folder_pair.split(",")[0]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("text")
    mistakes: list[tuple[list[object], str]] = [
        (["a.png", "small.png", "-o", "o.png"], "a.png, small.png: the two images differ in size: 160x128 and 64x64"),
        (["a.png", "text.png", "-o", "o.png"], "a.png, text.png: text.png: is not an image"),
        (["a.png", "none.png", "-o", "o.png"], "none.png: no such file or folder"),
        (["a.png", near, "-o", "o.png"], "one is a file, the other a folder"),
        (["a.png", "a.png", "-o", "o.gif"], "-o o.gif: must end in .png"),
        (
            [near, "alone", "-o", "o"],
            f"5 images have no partner of the same name: {near} has 0.png, 1.png, 2.png, 3.png; alone",
        ),
        (["empty", "empty", "-o", "o"], "empty: no images in this folder"),
        ([near, near, "-o", "a.png"], "-o a.png: is a file, must be a folder"),
        (["a.png", "a.png", "-o", "o.png", "--steps", "3"], "--steps: the model is a regression"),
    ]
    for arguments, said in mistakes:
        ran = train("fuse", *arguments, "--task", "vif", "--model", folder)  # type: ignore[arg-type]
        assert (ran.code, said in ran.error) == (2, True), ran.err
    ran = train("fuse", "a.png", "a.png", "-o", "o.png", "--task", "viff", "--model", folder)
    assert ran.code == 2 and "unknown task 'viff': did you mean 'vif'" in ran.error
    assert not (tmp_path / "o.png").exists()


def test_fuse_never_writes_over_its_inputs(train: Train, folder: Path, tmp_path: Path) -> None:
    """Neither by the same path nor by a link of either kind, as a file or as a folder."""
    a, b = save(tmp_path / "vi/0.png", textured(1)), save(tmp_path / "ir/0.png", textured(2, channels=1))
    for out in ("linked", "hard", "inputs"):
        (tmp_path / out).mkdir()
    (tmp_path / "linked/0.png").symlink_to(a)
    (tmp_path / "hard/0.png").hardlink_to(b)
    (tmp_path / "alias").symlink_to(tmp_path / "ir")
    (tmp_path / "inputs/0.png").symlink_to(a)
    before = [path.read_bytes() for path in (a, b)]
    mistakes = [
        *(
            (a, b, out)
            for out in (a, b, tmp_path / "ir/../vi/0.png", tmp_path / "linked/0.png", tmp_path / "hard/0.png")
        ),
        *((a.parent, b.parent, tmp_path / out) for out in ("vi", "ir", "vi/../ir", "alias", "linked", "hard")),
        (tmp_path / "inputs", b.parent, a.parent),
    ]
    for first, second, out in mistakes:
        ran = train("fuse", first, second, "-o", out, "--task", "vif", "--model", tmp_path / "no model")
        assert (ran.code, f"-o {out}: " in ran.error) == (2, True), ran.err
    assert [path.read_bytes() for path in (a, b)] == before and (tmp_path / "linked/0.png").is_symlink()


def test_fuse_asks_for_what_it_finds(train: Train, folder: Path, tmp_path: Path) -> None:
    """``--prompt auto``: the prompt is said in a line, and used; it is for the known tasks, and marks nothing."""
    scene = scene_pair("vif", 70002, (320, 240))
    save(tmp_path / "vi/noisy.png", degrade(scene.a, "gaussian_noise", severity=0.9, seed=1))
    save(tmp_path / "ir/noisy.png", scene.b)
    out = tmp_path / "o.png"
    paths = (tmp_path / "vi/noisy.png", tmp_path / "ir/noisy.png", "-o", out, "--model", folder)
    ran = train("fuse", *paths, "--task", "vif", "--prompt", "auto")
    said = next(line for line in ran.err.splitlines() if "; prompt: " in line)
    assert ran.code == 0 and "gaussian_noise in a, σ " in said
    prompt = said.partition("; prompt: ")[2]
    images = [np.asarray(Image.open(path)) for path in paths[:2]]
    expected = FusionPipeline.from_pretrained(folder)(*images, task="vif", prompt=prompt)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)
    for option, message in (
        (("--task", "other"), "--prompt auto: is for pairs of"),
        (("--mask",), "--mask: is of what"),
    ):
        ran = train("fuse", *paths, "--prompt", "auto", *option)
        assert ran.code == 2 and message in ran.error


@pytest.mark.parametrize("values", ["counts", "degrees", "colour"])
def test_fuse_reads_infrared_as_builds_do(train: Train, folder: Path, tmp_path: Path, values: str) -> None:
    scene, a = textured(2, channels=1)[..., 0], textured(1)
    stored = {"counts": (51241 + 3 * scene.astype(np.uint16)), "degrees": (scene / 8 - 5).astype(np.float32)}
    suffix = "tif" if values == "degrees" else "png"
    (tmp_path / "ir").mkdir()
    path = tmp_path / f"ir/0.{suffix}"
    Image.fromarray(textured(5) if values == "colour" else stored[values]).save(path)
    save(tmp_path / "vi/0.png", a)
    pair = read_pair(PairRef("vif", "folder", "0", "0", "train", {"a": f"{tmp_path}/vi/0.png", "b": str(path)}))
    ran = train("fuse", tmp_path / "vi", tmp_path / "ir", "-o", tmp_path / "o", "--task", "vif", "--model", folder)
    assert ran.code == 0, ran.err
    expected = FusionPipeline.from_pretrained(folder)(pair.a, pair.b, task="vif")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o/0.png")), expected)


def test_fuse_passes_over_what_is_no_picture(train: Train, folder: Path, tmp_path: Path) -> None:
    for name in ("vi", "ir"):
        save(tmp_path / name / "0.png", textured(1))
        (tmp_path / name / "._0.png").write_bytes(b"\0\5\26\7junk")
        os.mkfifo(tmp_path / name / "pipe.png")
        (tmp_path / name / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "vi/folder.png").mkdir()
    ran = train("fuse", tmp_path / "vi", tmp_path / "ir", "-o", tmp_path / "o", "--task", "vif", "--model", folder)
    assert ran.code == 0 and [path.name for path in (tmp_path / "o").iterdir()] == ["0.png"], ran.err
    assert "vi: 4 ignored, as no images: ._0.png, folder.png, pipe.png, zero.png" in ran.err
    for name in ("pipe.png", "zero.png"):
        for given in ((f"vi/{name}", "ir/0.png"), ("vi/0.png", f"ir/{name}")):
            ran = train("fuse", *(tmp_path / x for x in given), "-o", tmp_path / "f.png", "--task", "vif")
            assert (ran.code, "is a pipe, socket or device" in ran.error) == (2, True), ran.err
        with pytest.raises(BadPair, match="is no regular file"):
            decode(str(tmp_path / "vi" / name))


def test_eval_scores_a_model_beside_the_fusers(
    train: Train, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = made_shards(tmp_path)
    ran = train("eval", shards / "vif", "--model", folder, "--out", tmp_path / "r", "--limit", "2", "--examples", "2")
    assert ran.code == 0, ran.err
    assert [line.split()[1] for line in ran.out.splitlines()[1:2]] == [folder.name]
    data = json.loads((tmp_path / "r/report.json").read_text())
    others = ["classical + pyramid", "pyramid on degraded", "pyramid on clean"]
    assert [m["name"] for m in data["methods"]] == [folder.name, *others]
    text = (tmp_path / "r/report.html").read_text()
    assert text.count("data:image") >= 2 * 6 and folder.name in text
    monkeypatch.chdir(tmp_path)
    least = ("--limit", "1", "--metrics", "PSNR", "--examples", "0")
    ran = train("eval", shards / "vif", "--out", tmp_path / "none", *least)
    assert ran.code == 0 and "model: clearfuse-small" in ran.err
    for name in ("one", "two"):
        shutil.copytree(folder, tmp_path / "runs" / name)
        ran = train("eval", shards / "vif", "--out", tmp_path / name, *least)
        if name == "one":
            data = json.loads((tmp_path / "one/report.json").read_text())
            assert ran.code == 0 and data["methods"][0]["name"] == "one"
    assert ran.code == 2 and "runs/one, runs/two" in ran.error
    both = ("--model", "runs/one", "--model", folder, "--out", tmp_path / "both", *least)
    ran = train("eval", shards / "vif", *both)
    assert ran.code == 0 and len(json.loads((tmp_path / "both/report.json").read_text())["methods"]) == 5
    ran = train("eval", shards / "vif", "--model", "runs/one", "--model", "runs/one")
    assert ran.code == 2 and "--model: two models of one name" in ran.error
