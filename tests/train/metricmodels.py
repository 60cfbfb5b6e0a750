"""Synthetic models of BRISQUE and NIQE in place of the packages' data files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.train.metrics import niqe, noreference


def made_models(folder: Path) -> None:
    """Write both, and let the metrics read them; the caller puts ``_files``, ``_file`` and the caches back."""
    sparse = " ".join(f"{k}:0.5" for k in range(1, 36))
    text = f"svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nrho -3\nSV\n2 {sparse}\n-1 36:1\n"
    model, ranges, pristine = folder / "svm.txt", folder / "normalize.pickle", folder / "model.npz"
    model.write_text(text)
    ranges.write_bytes(pickle.dumps({"min_": [-1.0] * 36, "max_": [2.0] * 36}))
    held: dict[str, Any] = {"mu_pris_param": np.linspace(0, 2, 36)[None]}
    np.savez(pristine, **held, cov_pris_param=np.diag(np.linspace(0.1, 1, 36)))
    noreference._files = lambda: (model, ranges)
    niqe._file = lambda: pristine
    noreference.regression.cache_clear()
    niqe.model.cache_clear()
