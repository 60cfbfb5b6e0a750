"""``train demo``."""

from __future__ import annotations

from typing import Any

from clearfuse.synth import console
from clearfuse.synth.cli.options import takes
from clearfuse.synth.files.schema import check_options
from clearfuse.train.cli.options import DemoOptions


@takes(DemoOptions)
def demo_command(**options: Any) -> None:
    """Open a local web page: degrade a pair, fuse it, look at the result and its scores; in English and Chinese."""
    from clearfuse.train.demo.serve import build_page, check_address, launch

    chosen = check_options(DemoOptions, options)
    check_address(chosen.host, chosen.port)
    page = build_page(chosen.model, chosen.device)
    console.note(f"http://{chosen.host}:{chosen.port}, until Ctrl-C")
    launch(page, chosen.host, chosen.port, chosen.share)
