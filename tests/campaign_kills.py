"""Kills of commands at random moments: started again, each must end with the bytes it would have ended with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BAD = ("unequal", "stuck")


def run(count: int, seed: int, folder: Path) -> Mapping[str, int]:
    """Kills ``count`` processes and counts how their work ended."""
    raise NotImplementedError
