"""Choosing runs of a sweep by the values they have, and the Weights & Biases sweep that does so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from offline_robust.errors import FULL, ConfigError, nearest
from offline_robust.files import write_text
from offline_robust.plain_yaml import dump_yaml
from offline_robust.sweeps.grids import Cell, SweepConfig


def select(cells: Sequence[Cell], picks: Sequence[tuple[str, Any]], sweep: SweepConfig) -> tuple[Cell, ...]:
    """The cells that have all of the picked values: of a dotted key, of ``seed``, or of ``list`` (position or name).

    Raises:
        ConfigError: a key that the sweep does not vary, or no cell with these values.
    """
    varied = dict.fromkeys(["seed", *(["list"] if sweep.items else []), *(k for c in cells for k in c.overrides)])
    chosen = list(cells)
    for key, value in picks:
        if key not in varied:
            raise ConfigError(f"the sweep does not vary '{key[:80]}'{nearest(key[:80], varied)}")
        chosen = [cell for cell in chosen if any(_same(value, has) for has in _values_of(cell, key, sweep))]
        if not chosen:
            raise ConfigError(f"no run of the sweep has {key[:80]}={str(value)[:80]}; --dry-run lists what there is")
    return tuple(chosen)


def wandb_sweep(sweep: SweepConfig, cells: Sequence[Cell], source: str, out: str) -> dict[str, Any]:
    """The sweep as Weights & Biases describes one: its agents run the very same cells, one at a time.

    An agent calls ``offline-robust sweep SOURCE KEY=VALUE... --out OUT``, so what is finished is not done again, and
    agents on several machines that share the folder fill one table.

    Args:
        sweep: what the cells come from.
        cells: all of its cells.
        source: the sweep's file, as every agent finds it.
        out: the sweep's folder.

    Raises:
        ConfigError: the list's items set different keys than names can tell apart.
    """
    parameters: dict[str, Any] = {key: {"values": list(values)} for key, values in (sweep.grid or {}).items()}
    if sweep.items:
        names = [item.get("name", place) for place, item in enumerate(sweep.items)]
        if len(set(map(str, names))) < len(names):
            raise ConfigError(f"{source}: list: two items have the same name; W&B could not tell them apart")
        parameters["list"] = {"values": names}
    parameters["seed"] = {"values": list(sweep.seed_list)}
    wandb = cells[0].config.wandb
    command = ["${env}", "${program}", "sweep", source, "${args_no_hyphens}", "--out", out, "--wandb", "auto"]
    about = {"project": wandb.project} | ({"entity": wandb.entity} if wandb.entity else {})
    about |= {"description": sweep.title} if sweep.title else {}
    return {
        "name": sweep.title or Path(source).stem,
        **about,
        "program": "offline-robust",
        "method": "grid",
        "command": [*command, "--jobs", "1", "--quiet"],
        "parameters": parameters,
    }


def write_wandb_sweep(path: Path, content: dict[str, Any]) -> None:
    """Writes a W&B sweep file.

    Raises:
        ConfigError: it cannot be written.
    """
    text = dump_yaml(json.loads(json.dumps(content)))
    head = f"# Register with `wandb sweep {path.name}`, then run `wandb agent` with the id it prints, on any machine.\n"
    try:
        write_text(path, head + text)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None


def _values_of(cell: Cell, key: str, sweep: SweepConfig) -> Iterator[Any]:
    if key == "seed":
        yield cell.config.seed
    elif key == "list":
        yield cell.item
        yield (sweep.items or ({},))[cell.item].get("name", cell.item)
    elif key in cell.overrides:
        yield cell.overrides[key]


def _same(picked: Any, has: Any) -> bool:
    if type(picked) is type(has) or (isinstance(picked, int | float) and isinstance(has, int | float)):
        return bool(picked == has)
    return isinstance(picked, list) and isinstance(has, tuple) and picked == list(has)
