"""``info.json`` of a sample in the layout of the MMAIF authors: what was done to it, and what is asked.

As their code base of December 2024 writes it: ``degrations`` (so spelled), ``instruction``, and H and W, which hold the
width and the height. Ours adds ``steps``: the images that each degradation hit, which theirs does not say.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ConfigDict

from clearfuse.synth.files import archives
from clearfuse.synth.files.schema import StrictModel, validate
from clearfuse.synth.operators import OPERATORS, physical_order
from clearfuse.synth.operators.authors import our_name
from clearfuse.synth.types import BadPair, Target, Task, UserError

ALIASES = {
    "noise": "gaussian_noise",
    "blur": "gaussian_blur",
    "super_resolution": "downsample",
    "downsampling": "downsample",
    "jpeg_compression": "jpeg",
    "low_light": "low_exposure",
    "over_exposure": "high_exposure",
    "stripes": "ir_stripes",
    "infrared_stripes": "ir_stripes",
}
"""Other names of our operators, as such sets have them."""
INFRARED_UNTOUCHED = ("haze", "rain", "snow")
"""What their pipeline does to the visible image alone, or to the infrared as a counterpart of the same event."""


class InfoStep(StrictModel):
    """A degradation and the image that it hit."""

    op: str
    """Our operator."""
    target: Target
    """a, b or both."""


class Info(StrictModel):
    """A sample's ``info.json``."""

    model_config = ConfigDict(extra="ignore")

    degrations: list[str] | str = []  # noqa: RUF012
    """The degradations, in the order in which they act."""
    instruction: str = ""
    """The prompt."""
    steps: list[InfoStep] = []  # noqa: RUF012
    """Ours alone: the degradations by image."""

    def degradation(self, task: Task) -> tuple[tuple[str, Target], ...]:
        """(operator, target) in physical order; a degradation that is none of ours is left out."""
        known: dict[str, Target] = {our_name(step.op): step.target for step in self.steps}
        if not known:
            names = [self.degrations] if isinstance(self.degrations, str) else self.degrations
            known = {op: target_of(op, task) for name in names if (op := operator_of(name)) is not None}
        return tuple((op, known[op]) for op in physical_order(op for op in known if op in OPERATORS))


def operator_of(name: str) -> str | None:
    """Our operator of a degradation's name in any spelling; None where there is none."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.removeprefix("authors:").strip().lower()).strip("_")
    op = ALIASES.get(plain, plain)
    return op if op in OPERATORS else None


def target_of(op: str, task: Task) -> Literal["a", "b", "both"]:
    """The image that their pipeline degrades: both alike, but of a pair with an infrared the visible by weather."""
    if task != "vif":
        return "both"
    return "a" if op in INFRARED_UNTOUCHED else "b" if op.startswith("ir_") else "both"


def read_info(picture: str, task: Task) -> tuple[tuple[tuple[str, Target], ...], str]:
    """The degradation and the instruction of the sample with that picture in a tar; nothing where it has no info.

    Raises BadPair where its info is damaged.
    """
    folder, _, name = picture.rpartition("/")
    path = f"{folder}/{name.partition('.')[0]}.info.json"
    data = archives.read_member(path)
    if data is None:
        return (), ""
    try:
        info = validate(Info, data, "info.json")
    except UserError as error:
        raise BadPair(str(error)) from None
    return info.degradation(task), info.instruction.strip()
