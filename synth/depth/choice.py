"""Where a build takes its depth from: ``--depth``, resolved once before work begins."""

from __future__ import annotations

from clearfuse.synth.depth import DEPTHS, DepthSource
from clearfuse.synth.depth.maps import UNITS, Maps
from clearfuse.synth.types import UserError, check_name, unknown


def parse_depth(text: str, has_true: bool) -> DepthSource:
    """The source of ``auto``, ``NAME``, ``NAME=DIR`` or ``maps=DIR,unit=U``. has_true: the set brings its own depth.

    auto: the first in the table that can. Raises UserError, one line, where the name, its folder or the depth is not
    there.
    """
    name, equals, _ = text.partition("=")
    if name not in ("auto", *DEPTHS):
        raise unknown("depth", name, ["auto", *DEPTHS])
    takes = "nothing" if name == "auto" else DEPTHS[name].takes
    if equals and takes == "nothing":
        raise UserError(f"--depth {text}: {name} takes no folder")
    if name == "auto":
        return next(found for cls in DEPTHS.values() if (found := cls.automatic(has_true)) is not None)
    if DEPTHS[name].own and not has_true:
        allowed = ", ".join(cls.usage() for cls in DEPTHS.values() if not cls.own)
        raise UserError(f"--depth {name}: this data set has no depth of its own; allowed: {allowed}")
    folder, unit = split_unit(text)
    if takes == "a folder" and not folder:
        raise UserError(f"--depth {text}: {name} needs a folder, as in {DEPTHS[name].usage()}")
    if unit is not None:
        if name != Maps.name:
            raise UserError(f"--depth {text}: {name} takes no unit, which metric maps have: maps=DIR,unit=mm")
        check_name("unit", unit, UNITS)
        return Maps.open(folder, unit)
    return DEPTHS[name].open(folder)


def split_unit(text: str) -> tuple[str, str | None]:
    """The folder of ``NAME=DIR[,unit=U]``, empty for none, and the unit."""
    folder, given, unit = text.partition("=")[2].partition(",unit=")
    return folder, unit if given else None
