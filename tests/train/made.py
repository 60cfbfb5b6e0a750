"""Small shards for the tests of train: synthetic images, built by synth."""

from __future__ import annotations

from pathlib import Path

from clearfuse.synth.builder.run import build
from conftest import save, textured


def made_shards(folder: Path) -> Path:
    """``shards/vif`` (5 samples in 2 shards, grey infrared) and ``shards/mef`` (3 samples) in ``folder``."""
    for number in range(5):
        save(folder / "MSRS/train/vi" / f"{number:05d}D.png", textured(number))
        save(folder / "MSRS/train/ir" / f"{number:05d}D.png", textured(100 + number, channels=1))
    for number in range(8):
        save(folder / "under" / f"{number}.png", textured(200 + number) // 3)
        save(folder / "over" / f"{number}.png", 255 - (255 - textured(200 + number)) // 3)
    common = {"n": "1-2", "executor": "serial", "workers": 1}
    build("vif", data=[f"msrs={folder / 'MSRS'}"], out=str(folder / "shards/vif"), shard_size=3, **common)
    pairs = f"folder={folder / 'under'},{folder / 'over'}"
    build("mef", data=[pairs], out=str(folder / "shards/mef"), limit=3, **common)
    return folder / "shards"
