"""The methods of an evaluation, from the options of ``train eval``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clearfuse.train.evaluation.methods.fusers import CLASSICAL, METHODS, absent_fusers, fuser_methods, model_methods
from clearfuse.train.evaluation.methods.networks import network_methods
from clearfuse.train.evaluation.methods.results import result_methods
from clearfuse.train.evaluation.pairs import PairPortion
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method, Methods


def methods_of(
    models: Sequence[str] | None,
    *,
    results: Sequence[str] = (),
    scale: int | None = None,
    restorers: Sequence[str] = (),
    fusers: Sequence[str] | None = None,
    device: str | None = None,
    loading: Mapping[str, Any] | None = None,
    unprompted: bool = False,
    without_prior: bool = False,
    **sampling: Any,
) -> tuple[Methods, dict[str, str]]:
    """The models, folders of results, restoration networks, learned fusers, and the standard methods; and the fusers
    without weights, with the reasons. Pairs of plain folders tell no degradations for classical restoration to undo.

    models: None: the default one (``pipeline.shipped``); ``none``: no model. scale: of the results' pictures of
    16 bits. loading: options of ``load_pipeline``. unprompted: each model without prompts too; without_prior: with
    zeros for its semantic prior too. sampling: steps, sampler, guidance; None: the model's. Raises UserError if a
    method can't be loaded.
    """
    fitted_models = model_methods(models, device, loading, sampling, unprompted, without_prior)
    others = (*network_methods(restorers), *fuser_methods(fusers))

    def choose(portions: Sequence[Portion]) -> tuple[Method, ...]:
        told = () if any(isinstance(portion, PairPortion) for portion in portions) else (CLASSICAL,)
        return (*fitted_models, *result_methods(results, portions, scale), *others, *told, *METHODS.values())

    return choose, absent_fusers() if fusers is None else {}
