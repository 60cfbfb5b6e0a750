"""Two inputs from one picture, damaged by blocks in turn: multi-degradation masked-image modelling (M3) of DiTFuse.

What one input has lost in a block the other still shows, so the picture itself is the ground truth of their fusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from clearfuse.synth import color
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.blocks import BLOCK_OPERATORS
from clearfuse.synth.samples.draw import draw_weighted
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.records import Block, Blocks
from clearfuse.synth.types import ImageName, Target, look_up

Picture = UInt8[np.ndarray, "h w c"]


def draw_blocks(
    size: tuple[int, int],
    sizes: Sequence[int],
    both: float,
    operators: Mapping[str, float],
    seed: int,
) -> Blocks:
    """The damage of a picture of ``size`` (height, width).

    sizes: of blocks, each as likely; one holds for the whole picture. operators: their weights. A block is damaged in
    one input, each as likely, and a share ``both`` of the blocks, drawn without replacement, in both.
    """
    rng = generator(seed_of(seed, "draw"))
    side = int(rng.choice(list(sizes)))
    count = -(-size[0] // side) * -(-size[1] // side)
    twice = set(rng.permutation(count)[: round(both * count)].tolist())
    blocks: list[Block] = []
    for index in range(count):
        op, second = draw_weighted(rng, operators), float(rng.random()) < 0.5
        target: Target = "both" if index in twice else "b" if second else "a"
        blocks.append(Block(op=op, side=target, params=BLOCK_OPERATORS[op].draw(rng).params()))
    return Blocks(size=side, seed=seed, blocks=tuple(blocks))


def apply_blocks(picture: Picture, how: Blocks) -> tuple[Picture, Picture]:
    """The two inputs; of the picture and the record alone, bit for bit. Raises ValueError where they do not fit."""
    height, width = picture.shape[:2]
    side = how.size
    corners = [(y, x) for y in range(0, height, side) for x in range(0, width, side)]
    if len(corners) != len(how.blocks):
        raise ValueError(f"{len(how.blocks)} blocks of {side} pixels for a picture of {width}x{height}")
    a, b = picture.copy(), picture.copy()
    for index, ((y, x), block) in enumerate(zip(corners, how.blocks, strict=True)):
        op = look_up("block operator", block.op, BLOCK_OPERATORS)(**block.params)
        at = np.s_[y : y + side, x : x + side]
        sides: dict[ImageName, Picture] = {"a": a, "b": b}
        for name, image in sides.items():
            if block.side in (name, "both"):
                rng = generator(seed_of(how.seed, index, name))
                image[at] = color.to_uint8(op(color.code_to_float(picture[at]), rng, Scene()))
    return a, b
