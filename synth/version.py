"""The version of the package: settings, digests and cards name it."""

from __future__ import annotations

__version__ = "0.2.0"
