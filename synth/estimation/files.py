"""``synth estimate``: what is wrong with picture files, as a table or JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clearfuse.synth import color
from clearfuse.synth.datasets.read import as_grey, read_image
from clearfuse.synth.estimation.estimate import Estimate, estimate
from clearfuse.synth.estimation.network import load_network
from clearfuse.synth.estimation.prompt import single_prompt
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.files import storage
from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.types import BadPair, Modality, UserError, check_name

AUTO = "auto"
"""The modality that colour tells: a grey picture is taken for an infrared one."""
CHOICES = (AUTO, "visible", "infrared")


@dataclass(frozen=True)
class Examined:
    """A picture file, what was found in it, and the prompt that asks to remove it, None where nothing was found."""

    path: str
    estimate: Estimate
    sure: float
    prompt: str | None

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        found = [one.to_json() for one in self.estimate.found(self.sure)]
        presence = {one.op: round(one.certainty, 4) for one in self.estimate.findings}
        facts = {"image": self.path, "modality": self.estimate.modality, "found": found}
        return {**facts, "presence": presence, "prompt": self.prompt}


def estimate_files(
    images: Sequence[str],
    *,
    modality: str = AUTO,
    sure: float,
    seed: int = 0,
    language: str = "en",
    scale: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Examined], list[str]]:
    """(what was found in each file that can be used, what is wrong with the others).

    scale: see ``files.pictures.decode``. Raises UserError before work begins, also where a file is missing.
    """
    check_name("modality", modality, CHOICES)
    missing = [image for image in images if not storage.locate(image).is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such file")
    limit_threads()
    load_network()  # what is missing there is no picture's fault
    done: list[Examined] = []
    refused: list[str] = []
    for number, image in enumerate(images):
        try:
            found = _estimate_file(image, modality, scale)
            prompt = single_prompt(found, sure=sure, seed=seed, language=language)
            done.append(Examined(image, found, sure, None if prompt is None else prompt.text))
        except StoreError:
            raise
        except (BadPair, OSError, ValueError) as error:
            refused.append(f"{image}: {error}")
        progress(number + 1, len(images))
    return done, refused


def _estimate_file(path: str, modality: str, scale: int | None) -> Estimate:
    kind: Modality = "infrared" if modality == "infrared" else "visible"
    image, _ = read_image(path, kind, scale)
    if modality == AUTO and color.is_grey(image):
        kind = "infrared"
        image, _ = read_image(path, kind, scale)
    return estimate(as_grey(image) if kind == "infrared" else image, kind)


def describe(examined: Sequence[Examined]) -> str:
    """The table: by picture a line for each degradation, and the prompt."""
    lines: list[str] = []
    for one in examined:
        found = one.estimate.found(one.sure)
        lines.append(f"{one.path} ({one.estimate.modality})")
        if not found:
            next_one = one.estimate.findings[0]
            lines.append(f"  nothing found; the likeliest is {next_one.op}, {100 * next_one.certainty:.0f} %")
            continue
        names, strengths = (
            [f"{text}" for text in column] for column in ((x.op for x in found), (x.describe() for x in found))
        )
        widths = [max(map(len, column)) for column in (names, strengths)]
        for name, strength, finding in zip(names, strengths, found, strict=True):
            lines.append(f"  {name:<{widths[0]}}  {strength:<{widths[1]}}  {100 * finding.certainty:3.0f} % sure")
        lines.append(f"  prompt: {one.prompt}")
    return "\n".join(lines)
