"""Pixel transforms of albumentations as operators: replayed bit for bit, and the text of every error."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.builder.settings import versions
from clearfuse.synth.operators import OPERATORS, operator_class, physical_order
from clearfuse.synth.operators.albumentations import bridged, words_of
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.prompts.pools import KINDS, load_pool, pool_names
from clearfuse.synth.samples.chain import apply_steps, degrade
from clearfuse.synth.samples.draw import draw_step
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import TASKS, BadPair, Step, Target, UserError
from conftest import ROOT, Ran, save, textured

NOISE = "albumentations:GaussNoise"
GREY = ("GaussNoise", "Blur", "CLAHE", "ImageCompression", "RandomGamma", "ShotNoise", "SaltAndPepper", "Downscale")
COLOUR = ("ISONoise", "ChromaticAberration", "RandomFog", "Spatter", "FancyPCA", "ToGray")

RECIPE = """schema = 1
task = "vif"
n = [2]
[operators.haze]
target = { a = 1 }
[operators."albumentations:GaussNoise"]
target = { both = 1 }
params = { std_range = [0.1, 0.1] }
"""


def steps(name: str, seed: int = 3, **params: object) -> list[Step]:
    return [Step(f"albumentations:{name}", "both", params, seed)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GREY, *COLOUR])
@pytest.mark.parametrize("channels", [1, 3])
def test_same_step_same_bytes(name: str, channels: int) -> None:
    if channels == 1 and name in COLOUR and name != "FancyPCA":
        pytest.skip("needs three channels")
    image = textured(1, channels=channels)
    kept = image.copy()
    first, again = (apply_steps(image, steps(name), task="mef", name="a") for _ in range(2))
    assert first.shape == image.shape and first.dtype == np.uint8
    assert np.array_equal(first, again) and np.array_equal(image, kept)
    if name in ("GaussNoise", "ISONoise", "ShotNoise"):
        assert not np.array_equal(first, image)
        assert not np.array_equal(first, apply_steps(image, steps(name, 4), task="mef", name="a"))
        assert not np.array_equal(first, apply_steps(image, steps(name), task="mef", name="b"))


@pytest.mark.slow
def test_it_is_the_transform_seeded_once() -> None:
    import albumentations  # already imported by our module, with its online check for updates disabled

    image = textured(2)
    made = albumentations.GaussNoise(std_range=(0.1, 0.2), p=1)
    seed = int(generator(seed_of(3, "a")).integers(2**53))
    made.set_random_state(np.random.default_rng(seed), random.Random(seed))
    ours = apply_steps(image, steps("GaussNoise", std_range=[0.1, 0.2]), task="mef", name="a")
    assert np.array_equal(ours, made(image=image)["image"])


def test_noise_has_the_deviation_that_its_parameter_says() -> None:
    grey = np.full((256, 256, 1), 128, np.uint8)
    noisy = degrade(grey, NOISE, seed=1, modality="infrared")
    fixed = operator_class(NOISE)(std_range=[0.1, 0.1])  # type: ignore[call-arg]
    out = fixed(color.code_to_float(grey), generator(1), Scene("infrared"))
    assert noisy.std() > 20 and abs(float(out.std()) - 0.1) < 0.002


def test_global_generators_decide_nothing() -> None:
    made: list[np.ndarray] = []
    for seed in range(2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        made.append(degrade(textured(1), [NOISE, "albumentations:RandomRain", "albumentations:GlassBlur"], seed=1))
    assert np.array_equal(*made)


def test_severity_changes_nothing() -> None:
    image = textured(1)
    assert np.array_equal(degrade(image, NOISE, severity=0.0, seed=1), degrade(image, NOISE, severity=1.0, seed=1))


def test_every_argument_is_recorded_as_json() -> None:
    op = operator_class(NOISE).draw(generator(0))
    assert op.params() == {
        "std_range": [0.2, 0.44],
        "mean_range": [0.0, 0.0],
        "per_channel": True,
        "noise_scale_factor": 1,
    }
    assert json.loads(json.dumps(op.params())) == op.params()
    assert dataclasses.is_dataclass(op) and type(op).__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_classes_are_made_once_and_are_no_rows_of_the_table() -> None:
    assert operator_class(NOISE) is operator_class(NOISE)
    assert not [name for name in OPERATORS if "albumentations" in name]


def test_a_stage_decides_the_place_in_the_chain() -> None:
    names = ["jpeg", "albumentations:Blur@optics", NOISE, "gaussian_noise", "haze", "low_exposure", "downsample"]
    assert physical_order(names) == [
        *("haze", "albumentations:Blur@optics", "low_exposure", "gaussian_noise", NOISE, "downsample", "jpeg")
    ]
    assert bridged(f"{NOISE}@processing").name == NOISE
    image = textured(1)
    early, late = (degrade(image, f"albumentations:InvertImg{at}", seed=1) for at in ("@scene", ""))
    assert np.array_equal(late, 255 - image)
    # In a linear stage it still works on codes: the round trip through linear light changes none.
    assert np.array_equal(early, late)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "GausNoise",
            "unknown albumentations transform 'GausNoise': did you mean 'GaussNoise'? allowed: AdditiveNoise, ",
        ),
        (
            "GaussNoise@optic",
            "albumentations:GaussNoise@optic: unknown stage 'optic': did you mean 'optics'? allowed: ",
        ),
        (
            "HorizontalFlip",
            "albumentations:HorizontalFlip cannot be a step: "
            "only pixel transforms (ImageOnlyTransform) leave pairs aligned",
        ),
        (
            "Normalize",
            "albumentations:Normalize cannot be a step: "
            "gives float32 (120, 160, 3) for uint8 (120, 160, 3): a step must keep both",
        ),
        ("ToRGB", "albumentations:ToRGB cannot be a step: it changes nothing of an 8-bit image"),
        (
            "TextImage",
            "albumentations:TextImage cannot be a step: "
            "it needs font_path, and a sample holds its images and numbers only",
        ),
        ("HistogramMatching", "albumentations:HistogramMatching cannot be a step: HistogramMatching requires "),
    ],
)
def test_what_cannot_be_a_step(name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        operator_class(f"albumentations:{name}")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            ("std_range =", "std_rang ="),
            "params: unknown parameter of albumentations:GaussNoise 'std_rang': did you mean 'std_range'? "
            "allowed: mean_range, noise_scale_factor, per_channel, std_range",
        ),
        (
            ("[0.1, 0.1]", "[0.1, 9]"),
            "params: albumentations:GaussNoise.std_range = [0.1, 9]: All values in (0.1, 9.0) must be >= 0 and <= 1",
        ),
        (("[0.1, 0.1]", '"x"'), "params: albumentations:GaussNoise.std_range = 'x': Input should be a valid tuple"),
        (
            ("std_range =", "p ="),
            "params: albumentations:GaussNoise.p: a step is always applied; the operator's weight says how often",
        ),
        (("params =", "severity = 0.5\nparams ="), "severity: albumentations:GaussNoise has none: set its params"),
        (
            ("params =", 'stage = "optic"\nparams ='),
            "unknown stage 'optic': did you mean 'optics'? "
            "allowed: codec, exposure, optics, processing, resolution, scene, sensor",
        ),
    ],
)
def test_errors_in_a_recipe(tmp_path: Path, edit: tuple[str, str], message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.replace(*edit))
    with pytest.raises(UserError) as error:
        load_recipe(path)
    dot = "." if message.startswith(("params", "severity")) else ": "
    assert str(error.value) == f"{path}: operators.albumentations:GaussNoise{dot}{message}"


def test_a_stage_is_for_the_bridge_alone_and_a_transform_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.replace("[operators.haze]", '[operators.haze]\nstage = "optics"'))
    with pytest.raises(UserError, match=r"operators\.haze: stage = 'optics': only for albumentations:NAME"):
        load_recipe(path)
    path.write_text(RECIPE + f'[operators."{NOISE}@processing"]\n')
    with pytest.raises(UserError, match="albumentations:GaussNoise is there twice"):
        load_recipe(path)


def test_a_recipe_says_the_stage_and_limits_by_the_name_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    head = RECIPE.replace("n = [2]", f'n = [1]\nexclusive = [["haze", "{NOISE}"]]')
    path.write_text(head.replace("params =", 'stage = "codec"\nparams ='))
    recipe = load_recipe(path)
    assert list(recipe.operators) == ["haze", f"{NOISE}@codec"] and recipe.max_n() == 1
    step = draw_step(recipe, f"{NOISE}@codec", 5)
    assert step.op == f"{NOISE}@codec" and step.severity is None
    assert step.params["std_range"] == [0.1, 0.1] and step.params["per_channel"] is True
    assert draw_step(recipe, "haze", 5).severity is not None


def test_what_needs_colour_refuses_infrared_and_grey(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.replace(NOISE, "albumentations:ISONoise").replace("params =", "# "))
    with pytest.raises(UserError, match="albumentations:ISONoise does not act on the infrared image"):
        load_recipe(path)
    with pytest.raises(BadPair, match=r"^albumentations:ISONoise needs three channels, the image has one$"):
        degrade(textured(1, channels=1), "albumentations:ISONoise")


def test_a_transform_that_fails_is_a_reason_to_reject() -> None:
    with pytest.raises(BadPair, match=r"^albumentations:ImageCompression: "):
        degrade(np.zeros((1, 70_000, 3), np.uint8), "albumentations:ImageCompression")


def test_the_digest_names_the_versions_of_the_bridge() -> None:
    assert "albumentations" not in versions("webp", ["haze"])
    assert {"albumentations", "albucore"} <= set(versions("webp", ["haze", NOISE]))


@pytest.mark.parametrize(
    ("name", "words"),
    [("GaussNoise", "gauss noise"), ("RGBShift", "RGB shift"), ("CLAHE", "CLAHE"), ("FancyPCA", "fancy PCA")],
)
def test_names_as_words(name: str, words: str) -> None:
    assert words_of(f"albumentations:{name}@optics") == words


def test_the_pool_of_every_transform() -> None:
    pool = load_pool(NOISE)
    assert pool.names == ("gauss noise",) and len(pool.phrases) >= 10
    assert {phrase.kind for phrase in pool.phrases} == set(KINDS)
    for phrase in pool.phrases:
        assert pool.mentions(phrase.text) and pool.mentions(phrase.clause)
        assert "{strength}" not in phrase.text + phrase.clause
        assert not re.search(r"[,.;:?!]|\band\b|\ban? \{name\}", phrase.clause)
    assert "albumentations" not in pool_names()


@pytest.mark.parametrize("task", TASKS)
def test_prompts_of_every_combination(task: str) -> None:
    targets: tuple[Target, ...] = ("a", "b", "both")
    for seed in range(150):
        rng = generator(seed)
        mix = [Step(NOISE, targets[rng.integers(3)], {}, 1), Step("haze", "a", {}, 2, 0.5)][: 1 + seed % 2]
        prompt = compose(task, mix, rng)  # type: ignore[arg-type]
        assert "gauss noise" in prompt.text.lower() and prompt.templates[0].startswith(("albumentations-", "haze-"))
        assert not re.search(r"\s\s|[{}\[\]]|\s[,.?]", prompt.text) and len(prompt.text.split()) <= 45


def test_degrade_command(synth: Callable[..., Ran], tmp_path: Path) -> None:
    image = save(tmp_path / "one.png", textured(1))
    args = ("degrade", image, "--op", f"haze,{NOISE}", "--out", tmp_path / "out", "--json")
    assert synth(*args).code == 0 and (tmp_path / "out/one.png").is_file()
    ran = synth("degrade", image, "--op", "albumentations:Rotate", "--out", tmp_path / "out")
    assert ran.code == 2 and "only pixel transforms" in ran.error


@pytest.mark.slow
def test_a_build_replays(synth: Callable[..., Ran], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "out"
    assert synth("build", "--task", "vif", "--recipe", recipe, "--limit", "3", "--workers", "1", "--out", out).code == 0
    ran = synth("verify", out, "--replay", "--json")
    assert ran.code == 0 and json.loads(ran.out)["replayed"] == 3


@pytest.mark.slow
def test_the_package_is_imported_on_use_only_and_asks_no_network() -> None:
    code = (
        "import sys, urllib.request as u\n"
        "import clearfuse.synth.samples.chain, clearfuse.synth.samples.recipe, clearfuse.synth.cli.app\n"
        "assert 'albumentations' not in sys.modules\n"
        "def asked(*a, **k): raise SystemExit('asked the network')\n"
        "u.OpenerDirector.open = asked\n"
        f"clearfuse.synth.operators.operator_class('{NOISE}')\n"
        "import os; assert 'NO_ALBUMENTATIONS_UPDATE' not in os.environ\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
