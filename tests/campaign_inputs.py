"""The kinds of input of the fuzz: one sound example of each, how it is used, and how it is spoilt.

Every spoilt input follows from (seed, kind, number) alone.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import yaml
from dataset_files import columns, d4rl_file, episode, minari_folder
from safetensors.numpy import load_file, save_file
from toys import line_dataset, run_values, saved

Rng = np.random.Generator
DIGITS = "@digits@"
"""Stands for a whole number of thousands of digits, which no writer of JSON or YAML would write."""
NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**63, 2**64, 1e308, -1e308, 1e-320, float("nan"), float("inf"), DIGITS, "", "=1+1", "-0.5",
    "\0\x1b[31m\n\r", "\ud800", "x" * 5_000, "é" * 300, "module_of_mine:Env-v0", "/dev/zero", "../../../../etc/passwd",
    "S2000000000", [], {}, [[]], {"": {}}, [None] * 1_000, list(range(5_000)), {str(k): k for k in range(2_000)},
    {"env_id": "module_of_mine:Env"},
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        make: writes a sound example into a folder.
        file: the file to spoil, seen from that folder.
        use: reads the folder as the library would.
        spoil: ways to spoil the file, beside `spoil_bytes`.
    """

    make: Callable[[Path], None]
    file: str
    use: Callable[[Path], object]
    spoil: tuple[Callable[[Path, Rng], None], ...] = ()


def spoil(kind: Kind, folder: Path, rng: Rng) -> None:
    """Spoils an example: half of the time by its structure, where there is a way to."""
    chosen = kind.spoil[rng.integers(len(kind.spoil))] if kind.spoil and rng.random() < 0.6 else spoil_bytes
    chosen(folder / kind.file, rng)


# --- Ways to spoil --------------------------------------------------------------------------------------------------


def spoil_bytes(path: Path, rng: Rng) -> None:
    """Flips, cuts, doubles, empties or replaces bytes."""
    content = bytearray(path.read_bytes())
    way, size = int(rng.integers(7)), len(content)
    at = int(rng.integers(size)) if size else 0
    if way == 0:
        for _ in range(int(rng.integers(1, 40))):
            content[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    elif way == 1:
        del content[at:]
    elif way == 2:
        content[at:at] = rng.bytes(int(rng.integers(1, 200)))
    elif way == 3:
        content[at : at + 64] = bytes(64)
    elif way == 4:
        content = content + content[at:]
    elif way == 5:
        content[: min(size, 16)] = rng.bytes(min(size, 16))
    else:
        content = bytearray(
            (b"", b"\0" * 4096, b"[" * 100_000, b"{" * 50_000, b"\xff\xfe", b"1" * 50_000)[rng.integers(6)]
        )
    path.write_bytes(bytes(content))


def spoil_value(value: Any, rng: Rng) -> Any:
    """The value with one of its parts replaced, removed, doubled or nested too deep."""
    places: list[tuple[Any, Any]] = []

    def visit(part: Any) -> None:
        for key in list(part) if isinstance(part, dict) else range(min(len(part), 50)):
            places.append((part, key))
            if isinstance(part[key], dict | list):
                visit(part[key])

    if not isinstance(value, dict | list) or not value or rng.random() < 0.03:
        return NASTY[rng.integers(len(NASTY))]
    visit(value)
    part, key = places[rng.integers(len(places))]
    way = rng.random()
    if way < 0.75:
        part[key] = NASTY[rng.integers(len(NASTY))]
    elif way < 0.85:
        del part[key]
    elif way < 0.92:
        for _ in range(int(rng.choice([15, 40, 300, 900]))):
            part[key] = [part[key]]
    elif isinstance(part, dict):
        part[f"{key}_"] = NASTY[rng.integers(len(NASTY))]
    else:
        part += part
    return value


def _written(text: str) -> bytes:
    return text.replace(f'"{DIGITS}"', "9" * 5_000).replace(DIGITS, "9" * 5_000).encode("utf-8", "surrogatepass")


def spoil_json(path: Path, rng: Rng) -> None:
    path.write_bytes(_written(json.dumps(spoil_value(json.loads(path.read_text()), rng))))


def spoil_yaml(path: Path, rng: Rng) -> None:
    value = spoil_value(yaml.safe_load(path.read_text()), rng)
    try:
        text = yaml.safe_dump(value, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError, RecursionError):
        text = json.dumps(value)
    path.write_bytes(_written(text))


def spoil_lines(path: Path, rng: Rng) -> None:
    """One line of JSON of several."""
    lines = path.read_text().splitlines()
    at = int(rng.integers(len(lines)))
    spoilt = [_written(line) for line in lines]
    spoilt[at] = _written(json.dumps(spoil_value(json.loads(lines[at]), rng)))
    path.write_bytes(b"\n".join(spoilt) + b"\n")


def spoil_table(path: Path, rng: Rng) -> None:
    """One cell of a CSV table."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    row = rows[rng.integers(len(rows))]
    value = NASTY[rng.integers(len(NASTY))]
    row[rng.integers(len(row))] = value if isinstance(value, str) else json.dumps(value)
    path.write_bytes(_written("\n".join(",".join(row) for row in rows) + "\n"))


def spoil_tensors(path: Path, rng: Rng) -> None:
    """The header of a safetensors file, the JSON inside it, or one of its tensors."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    about = header.get("__metadata__", {})
    way = rng.random()
    if way < 0.5 and about:
        key = list(about)[rng.integers(len(about))]
        try:
            about[key] = _written(json.dumps(spoil_value(json.loads(about[key]), rng))).decode("utf-8", "replace")
        except ValueError:
            about[key] = "x" * 5_000
    elif way < 0.75:
        header = spoil_value(header, rng)
    elif way < 0.85:
        tensors = {name: np.array(values) for name, values in load_file(path).items()}
        name = list(tensors)[rng.integers(len(tensors))]
        ways = (lambda v: v.astype(np.float64), lambda v: v[None], lambda v: np.full(v.shape, np.nan, np.float32))
        tensors[name] = ways[rng.integers(3)](tensors[name])
        return save_file(tensors, path, {str(k): str(v) for k, v in about.items()})
    else:
        claim = int(rng.choice([0, 10, 2**20, 2**27, 2**40, 2**62]))
        return void(path.write_bytes(claim.to_bytes(8, "little") + content[8:]))
    text = _written(json.dumps(header))
    return void(path.write_bytes(len(text).to_bytes(8, "little") + text + rest))


def void(_: object) -> None:
    return None


def _odd_array(rng: Rng, shape: tuple[int, ...]) -> Any:
    """An array that is not what a column should be."""
    rows = shape[0] if shape else 1
    return (
        np.zeros(shape, np.complex64), np.zeros(rows, "S9"), np.array(["a"] * rows, object), np.zeros((*shape, 2, 2)),
        np.full(shape, np.nan), np.full(shape, 1e300), np.zeros(0), np.zeros((rows, 0)), np.int64(3),
        np.zeros(rows, [("a", "f4"), ("b", "i8")]), np.full(shape, 2**62), np.zeros((*shape[:1], 70_000), "?"),
    )[rng.integers(12)]  # fmt: skip


def spoil_hdf5(path: Path, rng: Rng) -> None:
    """One of the arrays: another type or shape, gigabytes that are declared only, a link, an attribute, nothing."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = names[rng.integers(len(names))]
        shape, way = file[name].shape, int(rng.integers(8))
        del file[name]
        if way == 0:
            file.create_dataset(name, (10**9, 9), "f8", chunks=(1_000, 9))
        elif way == 1:
            file[name] = h5py.SoftLink("/")
        elif way == 2:
            file[name] = h5py.ExternalLink("/etc/passwd", "/x")
        elif way == 3:
            file.create_group(name)
        elif way == 4:
            file.create_dataset(name, (300_000, 60), "f8", compression="gzip", chunks=(10_000, 60))[:10_000] = 1.0
        elif way < 7:
            array = _odd_array(rng, shape)
            text = array.dtype.hasobject
            file.create_dataset(name, data=[b"a"] * len(array) if text else array)
        file.attrs["id"] = rng.bytes(100).hex()


def spoil_npz(path: Path, rng: Rng) -> None:
    """One of the arrays of an archive, or its header, with checksums that are right."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = list(arrays)[rng.integers(len(arrays))]
    stream = io.BytesIO()
    way = rng.random()
    if way < 0.5:
        np.save(stream, _odd_array(rng, arrays[name].shape), allow_pickle=True)
        content = stream.getvalue()
    else:
        np.save(stream, arrays[name])
        content = stream.getvalue()
        header = content[10:128]
        nasty = (
            b"{" * 118, b"('a'" + b"," * 114, header.replace(b"'<f4'", b"'<f400000000'"), rng.bytes(118),
            header.replace(b"(", b"(99999999999999999999,"), header.replace(b"False", b"None"), b"\\" * 118,
            b"\0" * 118,
            header.replace(b"descr", b"DESCR"), header.replace(b"'shape': (", b"'shape': (-1, "),
            header.replace(b"<", b"("), header[:60] + rng.bytes(9) + header[69:],
        )[rng.integers(12)]  # fmt: skip
        length = int(rng.choice([len(nasty), len(nasty), 0, 65_535]))
        content = content[:8] + length.to_bytes(2, "little") + nasty + content[128:]
    arrays_bytes = {}
    for other, values in arrays.items():
        stream = io.BytesIO()
        np.save(stream, values)
        arrays_bytes[other] = content if other == name else stream.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_out:
        for other, data in arrays_bytes.items():
            archive_out.writestr(f"{other}.npy", data)


# --- Sound examples and their use -----------------------------------------------------------------------------------


def _minari(folder: Path) -> None:
    spec = json.dumps({"id": "Pendulum-v1", "kwargs": {"g": 9.5}, "entry_point": "x:Y", "additional_wrappers": []})
    minari_folder(folder / "x", [episode(3, seed=k) for k in range(3)], env_spec=spec, ref_min_score=1.0)


def _cached(folder: Path) -> None:
    minari_folder(folder / "x", [episode(2, seed=k) for k in range(70)])
    with _caching_in(folder / "cache"):
        _load(folder / "x", cache=True)
        (made,) = (folder / "cache").iterdir()
        made.rename(folder / "cache" / "cache.safetensors")


class _caching_in:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        os.environ["OFFLINE_ROBUST_CACHE"] = str(self.folder)

    def __exit__(self, *_: object) -> None:
        os.environ.pop("OFFLINE_ROBUST_CACHE", None)


def _load(path: Path, cache: bool = False) -> object:
    from offline_robust.datasets import check, describe, load_dataset

    if not cache:
        check(path)
    return describe(load_dataset(path, cache=cache))


def _load_cached(folder: Path) -> object:
    """Under the key that the source has here: its times are those of the copy."""
    from offline_robust.datasets.cache import Cache
    from offline_robust.datasets.sources import locate

    with _caching_in(folder / "cache"):
        where = Cache(locate(folder / "x"), None).path
        assert where is not None
        (folder / "cache" / "cache.safetensors").rename(where)
        return _load(folder / "x", cache=True)


def _yaml_file(name: str, content: Any) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_text(yaml.safe_dump(content)))


CONFIG = {
    "dataset": "pendulum-td3",
    "env": "Pendulum-v1",
    "env_kwargs": {"g": 9.0},
    "learner": {"name": "dr_sac", "hidden": [16], "divergence": {"name": "chi2", "radius": 0.5}, "samples": 8},
    "model": {"name": "vae", "hidden": [16]},
    "training": {"steps": 10, "model_steps": 5, "batch_size": 8},
    "evaluation": {"suite": "pendulum-gravity", "episodes": 2, "seed": 1},
    "wandb": {"mode": "disabled", "project": "p", "tags": ["a"]},
    "seed": 3,
}
SUITE = {
    "name": "mine",
    "source": "me",
    "environments": [
        {
            "env_ids": ["Pendulum-v1"],
            "sweeps": [{"parameter": "gravity", "levels": "0.5:1.5:5"}, {"parameter": "mass", "levels": [0.5, 2]}],
            "grid": [{"parameter": "length", "levels": [0.8, 1.2]}, {"parameter": "gravity", "levels": [0.9, 1.1]}],
            "conditions": [[{"parameter": "mass", "level": 1.5, "mode": "scale", "schedule": "ramp", "period": 50}]],
        }
    ],
}
SWEEP = {
    "title": "mine",
    "base": CONFIG,
    "grid": {"learner.discount": [0.9, 0.99]},
    "list": [{"name": "a", "training.steps": 7}, {"training.steps": 8, "training.batch_size": 9}],
    "seeds": [0, 1],
    "evaluation": {"episodes": 1},
}
RECIPE = {
    "name": "mine",
    "env_id": "Pendulum-v1",
    "env_kwargs": {"g": 9.0},
    "seed": 1,
    "description": "a",
    "larger": {"1k": 1000},
    "parts": [{"transitions": 40, "epsilon": 1.0}, {"transitions": 60, "epsilon": 0.5, "policy": "pendulum-td3"}],
}
SCORES = {
    "environments": {
        "Pendulum-v1": {
            "random": {"mean": -1224.0, "std": 270.1, "episodes": 100, "seed": 1000},
            "policies": {"a": {"mean": -150.2, "std": 86.0, "episodes": 100, "seed": 1000}},
            "versions": {"gymnasium": "1.2.2"},
            "command": "python x.py",
        }
    }
}


def _suite(folder: Path) -> object:
    from offline_robust.envs import load_suite, system

    return load_suite(folder / "suite.yaml").for_system(system("Pendulum-v1"))


def _sweep(folder: Path) -> object:
    from offline_robust.sweeps.grids import expand, load_sweep

    return expand(load_sweep(folder / "sweep.yaml"))


def _recipe(folder: Path) -> object:
    from offline_robust.collection import load_recipe
    from offline_robust.collection.from_recipe import make_recipe

    recipe = load_recipe(folder / "recipe.yaml")
    # What is long, but no more than that, is not worth the time of the fuzz.
    few = recipe.rows < 1_000 or recipe.rows > 10_000_000
    return make_recipe(recipe, folder, folder / "made") if few else None


def _config(folder: Path) -> object:
    from offline_robust.experiments.config import load_config

    return load_config(folder / "config.yaml").to_yaml()


def _scores(folder: Path) -> object:
    from offline_robust.evaluation import score_reference

    return score_reference(str(folder / "scores.yaml"), "Pendulum-v1").score(np.zeros(2))


def _run(folder: Path) -> None:
    """A finished run, evaluated, with a report's input and a cell beside it."""
    from offline_robust.environment import EnvironmentSpec
    from offline_robust.evaluation import evaluate
    from offline_robust.experiments.train import train

    values = run_values(
        saved(replace(_pendulum_rows(), environment=EnvironmentSpec("Pendulum-v1")), folder),
        "sac",
        steps=20,
        log_every=5,
    )
    run = train(values, out=folder / "run")
    results = evaluate(run.policy, "Pendulum-v1", perturb=["gravity=0.8,1.2"], episodes=2, cells=folder / "run/cells")
    results.meta.update({"page": {"title": "t", "command": "c", "runs": ["run"]}, "datasets": {"run": "data"}})
    results.meta.update({"parts": [dict(results.meta)], "broken": {"gravity x0.8": 1}})
    results.save(folder / "run" / "results.csv")
    (folder / "run" / "model.json").write_text(
        json.dumps(
            {"names": ["a"], "rmse": [0.1], "step_std": [1.0], "spread": [0.2], "relative_error": [0.1], "radius": 0.5}
            | {"warnings": ["w"], "coverage": {"nominal": [0.5], "observed": [0.4]}, "robust_gap": 0.1}
        )
    )
    (folder / "run" / "wandb.json").write_text(json.dumps({"id": "abc", "mode": "offline", "project": "p"}))
    cell = min((folder / "run" / "cells").iterdir())
    shutil.copy(cell, folder / "run" / "cell.json")


def _pendulum_rows() -> Any:
    from offline_robust.datasets import load_dataset

    data = load_dataset("pendulum-td3")
    return data.select(data.episode < 3)


def _report(folder: Path) -> object:
    from offline_robust.experiments.reporting import rewrite_report

    return rewrite_report(folder / "run")


def _open_run(folder: Path) -> object:
    from offline_robust.experiments import load_run

    run = load_run(folder / "run")
    return run.env_id, run.metrics, _report(folder)


def _policy(folder: Path) -> object:
    from offline_robust.experiments.evaluating import open_subject

    policy = open_subject(folder / "run" / "policy.safetensors").policy
    return policy.act(np.zeros((2, 3), np.float32))


def _checkpoint(folder: Path) -> object:
    from offline_robust.experiments.config import load_config
    from offline_robust.experiments.train import train

    (folder / "run" / "policy.safetensors").unlink()
    return train(load_config(folder / "run" / "config.yaml"), out=folder / "run", resume=True)


def _cells(folder: Path) -> object:
    from offline_robust.evaluation import evaluate
    from offline_robust.experiments import load_run

    cell = min((folder / "run" / "cells").iterdir())
    shutil.move(folder / "run" / "cell.json", cell)
    policy = load_run(folder / "run").policy
    return evaluate(policy, "Pendulum-v1", perturb=["gravity=0.8,1.2"], episodes=2, cells=folder / "run/cells")


def _wandb(folder: Path) -> object:
    from offline_robust.experiments import tracking

    return tracking._known_id(folder / "run" / "wandb.json"), tracking.version_tags(folder / "run")


def _metrics(folder: Path) -> object:
    from offline_robust.experiments.metrics import MetricsFile, read_metrics

    page = _report(folder)
    MetricsFile(folder / "run" / "metrics.jsonl", keep_until=10).close()
    return read_metrics(folder / "run" / "metrics.jsonl"), page


def _npz(folder: Path) -> None:
    saved(line_dataset(3, 4), folder)


def _rows() -> dict[str, Any]:
    """One row per transition, a column for each dimension."""
    content = columns(30, ends={9: "terminal", 19: "timeout"})
    tables = [(name, values) for name, values in content.items() if values.ndim == 2]
    numbered = {f"{name}_{k}": values[:, k] for name, values in tables for k in range(values.shape[1])}
    return numbered | {name: values for name, values in content.items() if values.ndim == 1}


def _csv(folder: Path) -> None:
    pd.DataFrame(_rows()).to_csv(folder / "x.csv", index=False)


def _jsonl(folder: Path) -> None:
    pd.DataFrame(_rows()).to_json(folder / "x.jsonl", orient="records", lines=True)


def _parquet(folder: Path) -> None:
    pd.DataFrame(_rows()).to_parquet(folder / "x.parquet")


def _buffer(folder: Path) -> None:
    from offline_robust.baselines import write_d3rlpy

    write_d3rlpy(line_dataset(3, 4), folder / "x.h5")


KINDS: dict[str, Kind] = {
    "minari metadata": Kind(_minari, "x/data/metadata.json", lambda f: _load(f / "x"), (spoil_json,)),
    "minari hdf5": Kind(_minari, "x/data/main_data.hdf5", lambda f: _load(f / "x"), (spoil_hdf5,)),
    "d4rl hdf5": Kind(
        lambda f: void(d4rl_file(f / "x.hdf5", columns(30, ends={9: "terminal", 19: "timeout"}))),
        "x.hdf5",
        lambda f: _load(f / "x.hdf5"),
        (spoil_hdf5,),
    ),
    "npz": Kind(_npz, "data.npz", lambda f: _load(f / "data.npz"), (spoil_npz,)),
    "csv": Kind(_csv, "x.csv", lambda f: _load(f / "x.csv"), (spoil_table,)),
    "json lines": Kind(_jsonl, "x.jsonl", lambda f: _load(f / "x.jsonl"), (spoil_lines,)),
    "parquet": Kind(_parquet, "x.parquet", lambda f: _load(f / "x.parquet"), (spoil_bytes,)),
    "replay buffer": Kind(_buffer, "x.h5", lambda f: _load(f / "x.h5"), (spoil_hdf5,)),
    "cache": Kind(_cached, "cache/cache.safetensors", _load_cached, (spoil_tensors,)),
    "configuration": Kind(_yaml_file("config.yaml", CONFIG), "config.yaml", _config, (spoil_yaml,)),
    "suite": Kind(_yaml_file("suite.yaml", SUITE), "suite.yaml", _suite, (spoil_yaml,)),
    "sweep": Kind(_yaml_file("sweep.yaml", SWEEP), "sweep.yaml", _sweep, (spoil_yaml,)),
    "recipe": Kind(_yaml_file("recipe.yaml", RECIPE), "recipe.yaml", _recipe, (spoil_yaml,)),
    "scores": Kind(_yaml_file("scores.yaml", SCORES), "scores.yaml", _scores, (spoil_yaml,)),
    "policy": Kind(_run, "run/policy.safetensors", _policy, (spoil_tensors,)),
    "checkpoint": Kind(_run, "run/checkpoints/last.safetensors", _checkpoint, (spoil_tensors,)),
    "meta": Kind(_run, "run/meta.json", _open_run, (spoil_json,)),
    "model": Kind(_run, "run/model.json", _report, (spoil_json,)),
    "metrics": Kind(_run, "run/metrics.jsonl", _metrics, (spoil_lines,)),
    "cells": Kind(_run, "run/cell.json", _cells, (spoil_json,)),
    "results": Kind(_run, "run/results.csv", _report, (spoil_table,)),
    "results meta": Kind(_run, "run/results.meta.json", _report, (spoil_json,)),
    "wandb settings": Kind(_run, "run/wandb.json", _wandb, (spoil_json,)),
}
