"""What there is to choose from, a line each: the tables of the package, described by themselves."""

from __future__ import annotations

from collections.abc import Callable

from clearfuse.synth.types import check_name


def _operators() -> dict[str, str]:
    from clearfuse.synth.operators import OPERATORS

    lines: dict[str, str] = {}
    for name, cls in OPERATORS.items():
        first = next(r for r in cls.ranges().items() if r[1].kind == "severe")
        span = f"{first[0]} {first[1].mild:g} to {first[1].strong:g} {first[1].unit}".rstrip()
        summary = (cls.__doc__ or "").strip().splitlines()[0]
        lines[name] = f"{cls.stage}: {summary} [{span}]"
    return lines


def _datasets() -> dict[str, str]:
    from clearfuse.synth.datasets.catalogue import catalogue, summary

    return {name: summary(facts) for name, facts in catalogue().items()}


def _fusers() -> dict[str, str]:
    from clearfuse.synth.fusers import fuser_help

    return fuser_help()


def _depths() -> dict[str, str]:
    from clearfuse.synth.depth import depth_help

    return depth_help()


def _codecs() -> dict[str, str]:
    from clearfuse.synth.shards.codecs import CODECS

    return {name: codec.doc for name, codec in CODECS.items()}


def _prompts() -> dict[str, str]:
    from clearfuse.synth.operators import OPERATORS
    from clearfuse.synth.prompts.pools import load_pool

    lines: dict[str, str] = {}
    for name in OPERATORS:
        pool = load_pool(name)
        first = pool.phrases[0].text
        lines[name] = f"{len(pool.phrases)} phrasings; {', '.join(pool.names)}; such as: {first}"
    return lines


def _recipes() -> dict[str, str]:
    from clearfuse.synth.files.resources import resource_names
    from clearfuse.synth.samples.mixture import FOLDER, read_mixture
    from clearfuse.synth.samples.recipe import load_recipe

    lines: dict[str, str] = {}
    for name in resource_names("manifests/recipes"):
        recipe = load_recipe(name)
        lines[name] = f"{recipe.task}; n {', '.join(map(str, recipe.n))} (at most {recipe.max_n()}); " + ", ".join(
            recipe.operators
        )
    for name in resource_names(FOLDER):
        mixture = read_mixture(name)
        lines[name] = "any; " + ", ".join(f"{category} {weight:g}" for category, weight in mixture.categories.items())
    return lines


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "operators": _operators,
    "datasets": _datasets,
    "fusers": _fusers,
    "depths": _depths,
    "codecs": _codecs,
    "prompts": _prompts,
    "recipes": _recipes,
}


def listing(kind: str) -> dict[str, str]:
    """Name -> one line, for one of ``KINDS``."""
    check_name("kind", kind, KINDS)
    return KINDS[kind]()
