"""``train tokenizers`` on folders, shards and scenes: its measurements and its error messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made import made_shards
from vaes import saved, tiny

from clearfuse.synth.types import UserError
from clearfuse.train.evaluation import reconstruction
from clearfuse.train.evaluation.reconstruction import Table, TokenizerRow, reconstruct, to_text
from clearfuse.train.metrics import evaluate
from clearfuse.train.tokenizers import Tokenizer
from conftest import Ran

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]


def test_the_numbers_are_those_of_what_came_back(
    tmp_path: Path, folder_pair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = str(saved(tmp_path / "vae", tiny))
    through, seen = reconstruction._reconstruct, list[tuple[np.ndarray, np.ndarray]]()

    def passed(tokenizer: Tokenizer, picture: np.ndarray, device: torch.device) -> tuple[np.ndarray, float, float]:
        found = through(tokenizer, picture, device)
        if tokenizer.z != 192:
            seen.append((picture, found[0]))
        return found

    monkeypatch.setattr(reconstruction, "_reconstruct", passed)
    table = reconstruct(
        [vae, "dct", vae],
        data=[f"folder={folder_pair}"],
        limit=2,
        crop=50,
        device="cpu",
    )
    assert [row.name for row in table.rows] == [vae, "dct"] and table.pictures == 4
    assert table.megapixels == pytest.approx(50 * 50 / 1e6)
    mine = seen[1:]  # the first call warms the network up
    values = [evaluate(back, picture, picture, picture, metrics=["PSNR", "SSIM"]) for picture, back in mine]
    assert len(mine) == 4 and all(back.shape == picture.shape == (50, 50, 3) for picture, back in mine)
    assert table.rows[0].psnr == pytest.approx(np.mean([each["PSNR"] for each in values]))
    assert table.rows[0].ssim == pytest.approx(np.mean([each["SSIM"] for each in values]))
    assert (table.rows[1].psnr, table.rows[1].f, table.rows[1].z) == (100, 8, 192)
    assert all(row.encode > 0 and row.decode > 0 for row in table.rows)


def test_over_shards_and_scenes(train: Train, tmp_path: Path) -> None:
    shards = made_shards(tmp_path)
    ran = train("tokenizers", "--shards", shards / "vif", "--shards", shards / "mef", "--limit", "3", "--json")
    data = json.loads(ran.out)
    assert ran.code == 0 and data["pictures"] == 6 and data["rows"][0]["name"] == "dct"
    assert data["rows"][0]["paper"] is None and "others by name: pixels, taesd, taesd3, taef1, taef2, flux" in ran.err
    ran = train("tokenizers", "dct", "--limit", "1", "--crop", "40", "--device", "cpu")
    assert ran.code == 0 and ran.out.splitlines()[0].split()[:4] == ["tokenizer", "f", "z", "PSNR"]
    assert ran.out.splitlines()[1].split()[:5] == ["dct", "8", "192", "lossless", "1.0000"]
    assert ran.out.splitlines()[2].startswith("2 pictures of 0.0016 megapixels, on cpu; the paper's figures")


def test_the_paper_s_figures_stand_beside(train: Train) -> None:
    text = to_text(Table((TokenizerRow("cosmos=dir", 8, 16, 33.5, 0.93, 1.0, 2.0),), 2, 0.3, "cpu"))
    assert text.splitlines()[1].split() == ["cosmos=dir", "8", "16", "33.50", "0.9300", "1.0", "2.0", "34.02", "0.9367"]


def test_mistakes_are_one_line(train: Train, tmp_path: Path) -> None:
    for arguments, said in [
        (["dtc"], "unknown tokenizer 'dtc': did you mean 'dct'"),
        (["dct", "--data", "msrs"], "--data msrs: must be NAME=DIR"),
        (["dct", "--data", "mrss=."], "did you mean 'msrs'"),
        (["dct", "--shards", "nowhere"], "nowhere"),
        (["dct", "--limit", "0"], "--limit 0: must be at least 1"),
        (["dct", "--crop", "8"], "--crop 8: must be at least 16"),
        ([f"cosmos={tmp_path}", "--limit", "1"], "encoder.jit is missing"),
        ([str(tmp_path), "--limit", "1"], "config.json is missing"),
    ]:
        ran = train("tokenizers", *arguments)
        assert (ran.code, said in ran.error) == (2, True), ran.err
    with pytest.raises(UserError, match=r"--data folder=.*: the same folder is named twice"):
        reconstruct(["dct"], data=[f"folder={tmp_path},{tmp_path}"])
