"""``train metrics agree``: tables of others' scores, ranks worked by hand, and VIFB's published values."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.types import UserError
from clearfuse.train.evaluation.files import FileScores
from clearfuse.train.evaluation.options import ScoringOptions
from clearfuse.train.evaluation.stress.agree import Scores, agree, compare, read_scores
from clearfuse.train.metrics import METRICS, evaluate
from conftest import Ran, save, textured

Run = Callable[..., Ran]


def test_ranks_are_those_worked_by_hand() -> None:
    """Three methods of two scenes: in one of them a pair of three is the other way, τ = 1/3, in the other none."""
    ours = {"x": (1, 10), "y": (2, 20), "z": (3, 30)}
    theirs = {"x": (1, 1), "y": (3, 2), "z": (2, 3)}
    measured = FileScores(
        (METRICS["EN"], METRICS["CE"]),
        {m: {str(k): {"EN": float(v), "CE": -float(v)} for k, v in enumerate(of)} for m, of in ours.items()},
        {},
    )
    table = Scores(
        ("people",), {m: {str(k): {"people": float(v)} for k, v in enumerate(of)} for m, of in theirs.items()}
    )
    found = compare(table, "people", measured, METRICS["EN"])
    assert (found.within, found.scenes, found.images) == (pytest.approx((1 / 3 + 1) / 2), 2, 6)
    # Ranks of ours 1..6; of theirs 1.5 5.5 3.5 and 1.5 3.5 5.5 in the order of ours: Σd² = 11.5.
    assert found.overall == pytest.approx(np.corrcoef([1, 2, 3, 4, 5, 6], [1.5, 5.5, 3.5, 1.5, 3.5, 5.5])[0, 1])
    # Means 5.5 11 16.5 of ours, 1 2.5 2.5 of theirs: two pairs of three agree, one is tied.
    assert found.methods == pytest.approx(2 / math.sqrt(3 * 2)) and (found.same, found.of) == (1, 3)
    less = compare(table, "people", measured, METRICS["CE"])
    assert less.within == found.within, "less of CE is better, and its values are the negatives"
    assert compare(table, "people", measured, METRICS["EN"], worse=True).within == pytest.approx(-found.within)
    own = compare(table, "people", measured, METRICS["EN"], own=True)
    assert own.largest == pytest.approx(9.0) and found.largest is None, "10 where they have 1"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Two pairs and the fusions of two methods, one of them noisy, in one folder with the method in the name."""
    for k in (1, 2):
        a, b = textured(k, 96, 80), textured(k + 5, 96, 80, channels=1)
        save(tmp_path / "vi" / f"{k}.png", a)
        save(tmp_path / "ir" / f"{k}.png", b)
        mean = (a.astype(float) + b) / 2
        noise = np.random.default_rng(k).normal(0, 25, mean.shape)
        save(tmp_path / "fused" / f"{k}_mean.png", mean.astype(np.uint8))
        save(tmp_path / "fused" / f"{k}_noisy.png", (mean + noise).clip(0, 255).astype(np.uint8))
    return tmp_path


def people(at: Path, text: str, name: str = "people.csv") -> Path:
    """A table of scores."""
    (at / name).write_text(text)
    return at / name


TABLE = "image,method,Overall Score,Artifacts\n1,mean,5,1\n1,noisy,1,4\n2,mean,4,1\n2,noisy,2,5\n"


def test_metrics_that_noise_raises_disagree_with_people(scene: Path, train: Run) -> None:
    table = people(scene, TABLE)
    asked = ("metrics", "agree", scene / "vi", scene / "ir", f"{scene}/fused/{{key}}_{{method}}", "--scores", table)
    done = train(*asked, "--lower", "Artifacts", "--metrics", "AG,Qabf", "--json")
    assert done.code == 0, done.err
    rows = {(one["column"], one["metric"]): one for one in json.loads(done.out)["agreement"]}
    assert len(rows) == 4
    for column in ("Overall Score", "Artifacts"):
        assert (rows[column, "AG"]["within"], rows[column, "AG"]["methods"], rows[column, "AG"]["same"]) == (-1, -1, 0)
        assert (rows[column, "Qabf"]["within"], rows[column, "Qabf"]["same"], rows[column, "Qabf"]["of"]) == (1, 2, 2)
    text = train(*asked, "--metrics", "AG,Qabf").out.splitlines()
    assert text[1].split()[:4] == ["Overall", "Score", "Qabf", "+1.000"] and "largest" in text[0]


def test_json_lines_with_scores_in_an_object_and_one_method(scene: Path) -> None:
    lines = [{"image": str(k), "scores": {"Overall Score": k, "Sharpness": 5 - k}} for k in (1, 2)]
    table = people(scene, "\n".join(map(json.dumps, lines)), "people.jsonl")
    folder = scene / "one"
    for k in (1, 2):
        save(folder / f"{k}.png", np.asarray(Image.open(scene / "fused" / f"{k}_mean.png")))
    paths = {"a": str(scene / "vi"), "b": str(scene / "ir"), "fused": (str(folder),)}
    found = agree(ScoringOptions(**paths, metrics="EN,CE", workers=1), str(table))

    def value(metric: str, k: int) -> float:
        images = (np.asarray(Image.open(scene / side / f"{k}.png")) for side in ("one", "vi", "ir"))
        return evaluate(*images, metrics=[metric])[metric]

    first = {metric: [value(metric, k) for k in (1, 2)] for metric in ("EN", "CE")}
    for one in found:
        rises = (first[one.metric][1] > first[one.metric][0]) == (one.metric == "EN")
        assert one.overall == (1 if rises == (one.column == "Overall Score") else -1)
        assert (one.scenes, one.images, one.of) == (0, 2, 1) and math.isnan(one.within) and math.isnan(one.methods)


@pytest.mark.slow
def test_evafusions_labels_come_by_the_lines_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Run
) -> None:
    """The page's Python makes folders and a table of a saved data set in that form, its command the agreement."""
    datasets = pytest.importorskip("datasets")
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    script, command = re.findall(r"  ```(?:python|sh)\n(.*?)  ```", page.partition("EVAFusion's labels")[2], re.DOTALL)[
        :2
    ]
    rows: dict[str, list[Any]] = {"visible": [], "infrared": [], "fused": [], "scores": []}
    for k in range(4):
        a, b = textured(k, 96, 80), textured(k + 5, 96, 80)
        mean = (a.astype(float) + b) / 2
        noise = np.random.default_rng(k).normal(0, 12 * k, mean.shape)
        images = (a, b, (mean + noise).clip(0, 255).astype(np.uint8))
        for side, image in zip(("visible", "infrared", "fused"), images, strict=True):
            rows[side].append(Image.fromarray(image))
        rows["scores"].append({"Thermal Retention": 5.0 - k, "Overall Score": 5.0 - k, "Artifacts": 1.0 + k})
    columns = datasets.Features(
        {side: datasets.Image() for side in ("visible", "infrared", "fused")}
        | {"scores": {name: datasets.Value("float32") for name in rows["scores"][0]}}
    )
    datasets.Dataset.from_dict(rows, columns).save_to_disk(tmp_path / "EVAFusion" / "test")
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(script), {})
    asked = shlex.split(command)
    assert asked[:3] == ["train", "metrics", "agree"]
    done = train(*asked[1:], "--metrics", "AG,Qabf", "--json")
    assert done.code == 0, done.err
    found = {(one["column"], one["metric"]): one for one in json.loads(done.out)["agreement"]}
    for column in ("Thermal Retention", "Overall Score", "Artifacts"):
        assert found[column, "Qabf"]["overall"] == 1 and found[column, "AG"]["overall"] == -1
        assert found[column, "AG"]["images"] == 4


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("image,method,s\n1,mean,good\n", "t.csv", "line 2: s: good is no number"),
        ("image,method,s\n1,mean,1\n1,mean,2\n", "t.csv", "line 3: image 1 of mean has scores already"),
        ("image,method,s\n1,mean\n", "t.csv", "line 2: not as many cells as the first line has"),
        ("picture,s\n1,2\n", "t.csv", "line 2: has no image: a line names its image, its method and its scores"),
        ("image,method,s\n1,mean,\n", "t.csv", ": has no scores"),
        ("image,s,s\n1,2,3\n", "t.csv", ": two columns are named s"),
        (
            f"image,s\n1,{'1' * 200_000}\n",
            "t.csv",
            "is no line of a table: field larger than field limit (131072)",
        ),
        ("[1]\n", "t.jsonl", "line 1: is no JSON object"),
        ("[" * 100_000, "t.jsonl", "line 1: is no JSON object"),
        ('{"image": 1, "scores": 3}\n', "t.jsonl", "line 1: scores must be an object of numbers by name"),
        ('{"image": 1, "s": NaN}\n', "t.jsonl", "line 1: s: nan is no number"),
    ],
)
def test_a_wrong_table_is_named_by_its_line(tmp_path: Path, text: str, name: str, reason: str) -> None:
    with pytest.raises(UserError) as error:
        read_scores(str(people(tmp_path, text, name)))
    assert str(error.value).endswith(reason) and str(error.value).startswith(f"--scores {tmp_path}")


def test_what_does_not_fit_together_is_refused_before_work(scene: Path, train: Run) -> None:
    pairs = ("metrics", "agree", scene / "vi", scene / "ir")
    fused = f"{scene}/fused/{{key}}_{{method}}"
    table = people(scene, TABLE)
    other = people(scene, TABLE.replace("1,", "7,").replace("2,", "8,"), "other.csv")
    for options, reason in (
        ((fused, "--scores", scene / "none.csv"), "cannot be read: No such file or directory"),
        ((fused, "--scores", table, "--lower", "Artefacts"), "did you mean 'Artifacts'?"),
        (
            (fused, "--scores", other),
            "none of its images is among the fused ones: it has 7 of mean, noisy, and there are 1, 2 of mean",
        ),
        ((f"{scene}/fused/{{key}}_gone", "--scores", table), "no images in this folder"),
    ):
        done = train(*pairs, *options)
        assert done.code == 2 and reason in done.error, done.error


@pytest.mark.slow
def test_ranks_of_vifb_are_the_published_ones(shared: Path, tmp_path: Path) -> None:
    """Two scenes, five methods whose stored images are those measured, by the four quick metrics of the toolbox."""
    root = shared / "data/vif/VIFB"
    for side in ("VI", "IR"):
        for image in ("man", "snow"):
            save(
                tmp_path / side / f"{image}.png",
                np.asarray(Image.open(root / "input" / side / f"{image}.jpg").convert("RGB")),
            )
    with (root / "published_metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] in ("CNN", "DLF", "GFF", "LatLRR", "MSVD")]
    names = ("image", "method", "Entropy", "Variance", "Cross_entropy", "Rmse")
    table = people(tmp_path, "\n".join([",".join(names), *(",".join(row[name] for name in names) for row in rows)]))
    fused = (str(root / "output/fused_images/{key}_{method}"),)
    paths = {"a": str(tmp_path / "VI"), "b": str(tmp_path / "IR"), "fused": fused}
    found = agree(ScoringOptions(**paths, profile="vifb", workers=1), str(table))
    assert [one.metric for one in found] == ["EN", "SD", "CE", "RMSE"]
    for one in found:
        assert (one.within, one.methods, one.same, one.of, one.images) == (1, 1, 5, 5, 10)
        assert one.largest is not None and one.largest < 2e-4
