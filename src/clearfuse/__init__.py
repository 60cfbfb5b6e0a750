"""ClearFuse: degraded image-fusion data, models trained on it, and numbers that can be checked.

The names below come from ``clearfuse.synth`` (data) and ``clearfuse.train`` (models). Each is imported on first use, so
that ``import clearfuse`` costs nothing, and without a look into the folder of the user's own program: a ``types.py`` or
``platform.py`` there would stand in for Python's.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False

_HOMES = {
    "build": "clearfuse.synth.builder.run",
    "degrade": "clearfuse.synth.samples.chain",
    "load_recipe": "clearfuse.synth.samples.recipe",
    "OPERATORS": "clearfuse.synth.operators",
    "FusionPipeline": "clearfuse.train.pipeline.fusion",
    "evaluate": "clearfuse.train.metrics",
    "OnTheFly": "clearfuse.synth.onthefly",
    "open_shards": "clearfuse.synth.shards.stream",
    "load_plugins": "clearfuse.synth.plugins",
    "__version__": "clearfuse.synth.version",
}

if TYPE_CHECKING:
    from clearfuse.synth.builder.run import build as build
    from clearfuse.synth.onthefly import OnTheFly as OnTheFly
    from clearfuse.synth.operators import OPERATORS as OPERATORS
    from clearfuse.synth.plugins import load_plugins as load_plugins
    from clearfuse.synth.samples.chain import degrade as degrade
    from clearfuse.synth.samples.recipe import load_recipe as load_recipe
    from clearfuse.synth.shards.stream import open_shards as open_shards
    from clearfuse.synth.version import __version__ as __version__
    from clearfuse.train.metrics import evaluate as evaluate
    from clearfuse.train.pipeline.fusion import FusionPipeline as FusionPipeline


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'clearfuse' has no attribute '{name}'")
    before = list(sys.path)
    if is_users_folder(before[0]):
        del sys.path[0]
    try:
        return getattr(__import__(_HOMES[name], fromlist=[name]), name)
    finally:
        if sys.path == before[1:]:
            sys.path[:] = before


def leave_users_folder() -> None:
    """Take the folder of the user's program out of Python's path: what ``python -m`` puts there is not for commands."""
    if is_users_folder(sys.path[0]):
        del sys.path[0]


def is_users_folder(folder: str) -> bool:
    """Whether a place of Python's path is the folder of the user's program, and not where this package lies."""
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    own = [os.getcwd()] if program is None else [os.getcwd(), os.path.dirname(os.path.abspath(program))]
    place = os.path.abspath(folder)
    return not sys.flags.safe_path and place in own and place != os.path.dirname(os.path.abspath(__path__[0]))


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
