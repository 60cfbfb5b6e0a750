"""``train downstream eval``: how well a detector or segmenter does on the fused images of several methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from clearfuse.synth.files.folders import check_folder
from clearfuse.synth.types import UserError
from clearfuse.train.device import find_device
from clearfuse.train.downstream.examples import write_examples
from clearfuse.train.downstream.fit import Record, read_fitted
from clearfuse.train.downstream.methods import find_methods, usual
from clearfuse.train.downstream.pictures import make_pictures
from clearfuse.train.downstream.report import write_report
from clearfuse.train.downstream.scores import Scored, score_pictures
from clearfuse.train.downstream.sources import Source
from clearfuse.train.evaluation.evaluate import locked

Progress = Callable[[int, int], None]


def evaluate(
    model: str,
    find: Callable[[Record], Source],
    out: str,
    *,
    methods: Sequence[str] = (),
    results: Sequence[str] = (),
    device: str | None = None,
    workers: int | None = None,
    shown: int = 4,
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None,
) -> Scored:
    """Fuse the pairs by each method into ``out/pictures``, score the network on them, and write the report.

    model: a folder of ``fit``. find: the pairs, for what it was fitted to. methods: see ``find_methods``; none:
    ``usual``. shown: pictures to draw what is found in. Raises UserError before work begins.
    """
    folder = check_folder(out)
    network, record = read_fitted(model)
    source = find(record)
    check_classes(record, source)
    chosen = find_methods(source, methods or (() if results else usual(source)), results, device)
    with locked(folder):
        pictures = make_pictures(source, chosen, folder, workers, progress("fuse"))
        network.module.to(find_device(device))
        bounds = {method.name: method.upper_bound for method in chosen}
        name = Path(model).resolve().name
        done = score_pictures(name, network, record, source, pictures, bounds, progress("score"))
        write_examples(done, network, folder, shown)
        write_report(done, folder)
    return done


def check_classes(record: Record, source: Source) -> None:
    """Raise UserError unless the pairs show what the network was fitted to find."""
    if set(record.classes) != set(source.classes):
        raise UserError(
            f"the network finds {', '.join(record.classes)}; {source.pairs[0].dataset} has {', '.join(source.classes)}"
        )
