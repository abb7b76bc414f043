"""What runs are called that are compared: alike exactly where they differ in nothing but their seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from offline_robust.errors import EvaluationError
from offline_robust.experiments.config import RunConfig
from offline_robust.experiments.run import Run
from offline_robust.reports.trained_on import data_names, data_of


class Named(Protocol):
    """A policy without a run behind it."""

    @property
    def name(self) -> str:
        """What tables call it."""


def distinct_labels(runs: Sequence[Run | Named]) -> list[str]:
    """A label for each run, the same exactly for runs that differ in their seed alone.

    Where one short label would stand for several configurations or data, what they differ in is added to it. Data are
    told apart by their fingerprints, whatever their names.

    Raises:
        EvaluationError: the same configuration and seed, or the same policy's name, is there twice.
    """
    labels = [str(run.meta["label"]) if isinstance(run, Run) else run.name for run in runs]
    seeds = [run.config.seed if isinstance(run, Run) else 0 for run in runs]
    trained = [run for run in runs if isinstance(run, Run)]
    data = [data_of(run.meta, run.config.dataset) for run in trained]

    def settings(pool: bool) -> list[dict[str, object]]:
        names = iter(data_names(data, pool))
        return [
            _flat(run.config) | {"dataset": next(names)} if isinstance(run, Run) else {"policy": run.name}
            for run in runs
        ]

    try:
        return _distinct(labels, settings(pool=True), seeds)
    except EvaluationError:  # one seed twice on the same data: two names for them may be what is compared
        return _distinct(labels, settings(pool=False), seeds)


def distinct_labels_of(configs: Sequence[RunConfig]) -> list[str]:
    """As `distinct_labels`, of configurations whose runs need not be there yet."""
    labels = [config.label for config in configs]
    return _distinct(labels, [_flat(config) for config in configs], [config.seed for config in configs])


def _distinct(labels: Sequence[str], settings: Sequence[dict[str, object]], seeds: Sequence[int]) -> list[str]:
    groups: dict[str, list[dict[str, object]]] = {}
    for label, own in zip(labels, settings, strict=True):
        groups.setdefault(label, []).append(own)
    differing = {label: _differing(alike) for label, alike in groups.items()}
    found = [
        " ".join([label, *(f"{key.split('.')[-1]}={own[key]}" for key in differing[label] if key in own)])
        for label, own in zip(labels, settings, strict=True)
    ]
    if len(set(zip(found, seeds, strict=True))) < len(found):
        raise EvaluationError("the same configuration and seed is there twice; compare each run once")
    return found


def _differing(settings: Sequence[dict[str, object]]) -> list[str]:
    keys = dict.fromkeys(key for own in settings for key in own)
    return [key for key in keys if len({repr(own.get(key)) for own in settings}) > 1]


def _flat(config: RunConfig) -> dict[str, object]:
    """What makes a configuration, by dotted key: all but its seed, logging and evaluation."""
    flat: dict[str, object] = {}

    def visit(value: object, path: str) -> None:
        if isinstance(value, dict):
            for key, below in value.items():
                visit(below, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = value

    visit({k: v for k, v in config.to_dict().items() if k not in ("seed", "wandb", "evaluation")}, "")
    return flat
