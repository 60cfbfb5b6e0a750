"""A build on Ray, with an operator of one's own: the same bytes as on this machine alone.

    RAY_ADDRESS=head:6379 python examples/build_on_ray.py s3://bucket/shards        # without: a local cluster

Workers on other machines get the plugin's source from here: it need not lie there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import clearfuse

HERE = Path(__file__).parent


def build(out: str, executor: str = "ray", workers: int | None = None, limit: int = 32) -> None:
    """Build so many samples of built-in scenes."""
    clearfuse.load_plugins(HERE / "vignette.py")
    report = clearfuse.build(
        "vif", out=out, recipe=HERE / "vignette.toml", prompts=HERE / "prompts", executor=executor, workers=workers,
        limit=limit,
    )  # fmt: skip
    print(f"{report.samples} samples in {report.shards} shards in {out}")


if __name__ == "__main__":
    build(sys.argv[1])
