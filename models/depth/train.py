"""Train the small depth network of the package: ``make depth-model``.

On the built-in scenes' true depth, and on pictures with maps of relative inverse depth where folders of them are given.
Seeded and resumable: a checkpoint holds all there is, and a step's samples depend on the seed and its number alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clearfuse.synth import color
from clearfuse.synth.depth.metres import ray_length, sky_mask
from clearfuse.synth.depth.network import SIDE, SmallDepthNet
from clearfuse.synth.depth.small import REACH, guess
from clearfuse.synth.scenes import make_scene, scene_pair, visible
from clearfuse.synth.seeds import generator, seed_of

SIZE = (SIDE, SIDE * 5 // 4)
"""(h, w) of a training sample."""

KEPT = (240, 320)
"""(h, w) at which pictures and maps are kept, from which samples are cut."""

CONSTANT = 0.6
"""Share of the steps with a constant learning rate."""

AVERAGE = 0.995
"""Decay a step of the weights' moving average, which is what is shipped."""

SHARE, FARTHER = 0.7, 1.12
"""What the shipped network keeps of its correction, and the factor to all distances, chosen after training on pictures
that it has not seen. A part of a picture is stretched to its own nearest point, and a whole picture's is nearer."""


def stretched(inverse: np.ndarray) -> np.ndarray:
    """t of ``SmallDepthNet`` from inverse depth in any unit, stretched as ``metric_from_inverse`` does it."""
    low, high = np.percentile(inverse, [1, 99])
    q = np.clip((inverse - low) / max(high - low, 1e-9), 0, 1)
    return (np.log1p(q * (REACH - 1)) / math.log(REACH)).astype(np.float32)


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A built-in scene: a picture and its inverse depth along the axis, at the size kept."""
    seed, size = seed_of("depth model", number), (2 * KEPT[1], 2 * KEPT[0])
    if number % 4 == 3:  # with a subject close to the camera
        pair = scene_pair("mff", seed, size)
        assert pair.gt is not None
        picture, metres = pair.gt, pair.depth
    else:
        found = make_scene(seed, size)
        picture, metres = visible(found), found.depth
    inverse = ray_length(np.ones_like(metres)) / metres  # 0 for the sky
    return small(picture), cv2.resize(inverse.astype(np.float32), KEPT[::-1], interpolation=cv2.INTER_AREA)


def small(picture: np.ndarray) -> np.ndarray:
    """A picture at the size kept, three channels."""
    return color.as_hwc(cv2.resize(picture, KEPT[::-1], interpolation=cv2.INTER_AREA))


def given(pictures: Path, maps: Path, most: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pictures of a folder that have a map of their name, in the order of their names, ``most`` of them."""
    out: list[tuple[np.ndarray, np.ndarray]] = []
    for path in sorted(pictures.iterdir())[:most]:
        inverse = cv2.imread(str(maps / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(str(path))
        if inverse is not None and picture is not None:
            laid = cv2.resize(inverse.astype(np.float32), KEPT[::-1], interpolation=cv2.INTER_LINEAR)
            out.append((small(np.ascontiguousarray(picture[..., ::-1])), laid))
    return out


def sample(
    rng: np.random.Generator, picture: np.ndarray, sky: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random part of a picture, mirrored by half, its light and colours changed; the guess and t of it. Float32."""
    h, w = (int(rng.uniform(0.75, 1) * side) for side in picture.shape[:2])
    top, left = (int(rng.integers(0, side - cut + 1)) for side, cut in zip(picture.shape, (h, w), strict=False))
    at = np.s_[top : top + h, left : left + w]
    code = cv2.resize(picture[at], SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    near = cv2.resize(inverse[at], (SIZE[1] // 2, SIZE[0] // 2), interpolation=cv2.INTER_AREA)
    usual = guess(sky[at], *SIZE)
    if rng.random() < 0.5:
        code, near, usual = code[:, ::-1], near[:, ::-1], usual[:, ::-1]
    if rng.random() < 0.15:
        code = np.repeat(code.mean(axis=2, keepdims=True), 3, axis=2)
    gain = np.exp2(rng.uniform(-1.2, 0.6)) * np.exp(rng.normal(0, 0.08, 3))
    code = np.clip(code ** np.exp(rng.normal(0, 0.25)) * gain, 0, 1)
    code = np.clip(code + rng.normal(0, rng.uniform(0, 0.04), code.shape), 0, 1)
    if rng.random() < 0.25:
        code = cv2.GaussianBlur(code, (0, 0), rng.uniform(0.4, 1.5))
    return code.astype(np.float32), usual, stretched(near)


def loss_of(predicted: Tensor, wanted: Tensor) -> Tensor:
    """L1, half of it up to a shift, and L1 of the gradients at three scales (Ranftl et al., TPAMI 2022)."""
    error = predicted - wanted
    shift = error.flatten(1).median(dim=1).values[:, None, None]
    total = 0.5 * error.abs().mean() + 0.5 * (error - shift).abs().mean()
    for scale in range(3):
        at = functional.avg_pool2d(error[:, None], 2**scale)
        total = total + 0.5 * (at.diff(dim=2).abs().mean() + at.diff(dim=3).abs().mean())
    return total


def rate(step: int, steps: int, most: float) -> float:
    """The learning rate: a short rise, a constant stretch, a fall by a cosine."""
    if step < 200:
        return most * (step + 1) / 200
    left = (steps - step) / ((1 - CONSTANT) * steps)
    return most if left >= 1 else most * 0.5 * (1 - math.cos(math.pi * max(left, 0.0)))


class Data:
    """The scenes and the given pictures: half of a batch from each, where there are both."""

    def __init__(self, scenes: int, sets: Sequence[tuple[Path, Path, int | None]], cache: Path) -> None:
        kept = cache / f"scenes-{scenes}-{KEPT[1]}x{KEPT[0]}.npz"
        if kept.is_file():
            with np.load(kept) as found:
                self.scenes = list(zip(found["pictures"], found["inverse"].astype(np.float32), strict=True))
        else:
            self.scenes = [scene(i) for i in range(scenes)]
            pictures, inverse = (np.stack(each) for each in zip(*self.scenes, strict=True))
            np.savez(kept, pictures=pictures, inverse=inverse.astype(np.float16))
        self.given = [pair for each in sets for pair in given(*each)]
        self.skies = {id(pool): [sky_mask(picture) for picture, _ in pool] for pool in (self.scenes, self.given)}

    def batch(self, seed: int, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The samples of a step: pictures, guesses and what is wanted."""
        drawn: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for i in range(count):
            rng = generator(seed_of("depth model", seed, step, i))
            pool = self.given if self.given and i % 2 else self.scenes
            which = int(rng.integers(len(pool)))
            code, usual, t = sample(rng, pool[which][0], self.skies[id(pool)][which], pool[which][1])
            drawn.append((code.transpose(2, 0, 1), usual, t))
        pictures, guesses, wanted = (torch.from_numpy(np.stack(each)) for each in zip(*drawn, strict=True))
        return pictures, guesses, wanted


def average_weights(network: torch.nn.Module, average: dict[str, Tensor], step: int) -> None:
    """Move the average towards the weights as they are, faster in the first steps; integers are copied."""
    decay = min(AVERAGE, (1 + step) / (10 + step))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def main() -> None:
    """Train, and write the averaged weights in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint and the scenes' cache")
    parser.add_argument("--out", type=Path, required=True, help="the weights, *.safetensors")
    parser.add_argument(
        "--maps", action="append", default=[], metavar="PICTURES,MAPS[,COUNT]", help="pictures with inverse depth"
    )
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    sets: list[tuple[Path, Path, int | None]] = []
    for text in options.maps:
        pictures, maps, *count = text.split(",")
        sets.append((Path(pictures), Path(maps), int(count[0]) if count else None))
    data = Data(options.scenes, sets, options.work)
    print(f"{len(data.scenes)} scenes, {len(data.given)} given pictures", flush=True)
    network = SmallDepthNet().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.02)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    checkpoint, first = options.work / "checkpoint.pt", 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
        print(f"resumed at step {first}", flush=True)
    recent, began = [], time.process_time()
    for step in range(first, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, options.steps, options.rate)
        pictures, guesses, wanted = data.batch(options.seed, step, options.batch)
        loss = loss_of(network(pictures, guesses), wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average_weights(network, average, step)
        recent.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {np.mean(recent):.4f} cpu {time.process_time() - began:.0f} s", flush=True)
            recent.clear()
        if (step + 1) % 200 == 0 or step + 1 == options.steps:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            torch.save(state | {"step": step + 1}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            write(average, options.out)


def write(average: dict[str, Tensor], path: Path) -> None:
    """The weights in half precision, without the counters of batches; the last layer has ``SHARE`` and ``FARTHER``."""
    from safetensors.torch import save_file

    kept = {name: value for name, value in average.items() if value.is_floating_point()}
    kept["head.weight"] = SHARE * kept["head.weight"]
    kept["head.bias"] = SHARE * kept["head.bias"] - math.log(FARTHER) / math.log(REACH)
    kept = {name: value.half().contiguous() for name, value in kept.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, path)


if __name__ == "__main__":
    main()
