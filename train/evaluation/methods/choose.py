"""All that an evaluation compares, from what a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clearfuse.train.evaluation.methods.fusers import CLASSICAL, METHODS, absent_fusers, fuser_methods, model_methods
from clearfuse.train.evaluation.methods.networks import network_methods
from clearfuse.train.evaluation.methods.results import result_methods
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method, Methods


def methods_of(
    models: Sequence[str] | None,
    *,
    results: Sequence[str] = (),
    restorers: Sequence[str] = (),
    fusers: Sequence[str] | None = None,
    device: str | None = None,
    loading: Mapping[str, Any] | None = None,
    **sampling: Any,
) -> tuple[Methods, dict[str, str]]:
    """The models, others' results, restoration networks before the pyramid, learned fusers, and what every report has;
    and the fusers that have no weights, with why.

    models: None the only run's, ``none`` no model. loading: where the models' parts are, as ``load_pipeline`` takes
    them. sampling: steps, sampler, guidance; None: the model's own. Raises UserError where one can't be had.
    """
    fitted = model_methods(models, device, loading, sampling)
    others = (*network_methods(restorers), *fuser_methods(fusers))

    def of(portions: Sequence[Portion]) -> tuple[Method, ...]:
        return (*fitted, *result_methods(results, portions), *others, CLASSICAL, *METHODS.values())

    return of, absent_fusers() if fusers is None else {}
