"""What tells two runs apart: the settings that a training follows from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from offline_robust.experiments.config import RunConfig, load_config
from offline_robust.untrusted import within

_NOT_TRAINED_BY = ("wandb", "evaluation")
_NOT_GIVEN = object()


def first_difference(folder: Path, config: RunConfig) -> tuple[str, str, str] | None:
    """Where the run of a folder was started otherwise than a configuration says: dotted key, its value there and here.

    None where it is the same training; ``evaluation`` and ``wandb`` may differ.
    """
    before, now = load_config(within(folder, "config.yaml")).to_dict(), config.to_dict()
    for section in now:
        if section not in _NOT_TRAINED_BY and not _alike(before[section], now[section]):
            return _difference(before[section], now[section], section)
    return None


def _difference(was: Any, asked: Any, path: str) -> tuple[str, str, str]:
    """The dotted key at which two values part, and what stands there; a part of another name differs in its name."""
    if not (isinstance(was, dict) and isinstance(asked, dict)):
        before, now = ("not given" if value is _NOT_GIVEN else repr(value)[:200] for value in (was, asked))
        return path, before, now
    keys = sorted({**asked, **was}, key=lambda key: key != "name")
    key = next(k for k in keys if not (k in was and k in asked and _alike(was[k], asked[k])))
    return _difference(was.get(key, _NOT_GIVEN), asked.get(key, _NOT_GIVEN), f"{path}.{key}")


def _alike(before: Any, now: Any) -> bool:
    """Whether two plain values say the same; a NaN says what a NaN says."""
    return bool(before == now) or json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True)
