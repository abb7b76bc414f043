"""Datasets from recipes: collected, joined, and written with a recipe and a card that say what they are."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from offline_robust.collection.cards import dataset_card
from offline_robust.collection.collect import CollectionProgress, check_memory, collect
from offline_robust.collection.recipes import Part, Recipe, load_recipe, policies, recipe_file
from offline_robust.datasets import TransitionDataset, load_dataset
from offline_robust.datasets.sources import POLICY, RECIPE, bundled_data, folder_to_make
from offline_robust.datasets.transitions import TENSORS
from offline_robust.datasets.writers import fill_minari, new_target
from offline_robust.envs import system
from offline_robust.errors import DatasetError
from offline_robust.files import recover, write_bytes, write_text
from offline_robust.locks import writing
from offline_robust.networks import Policy, load_policy
from offline_robust.plain_yaml import dump_yaml

_PACKAGES = ("offline-robust", "numpy", "torch", "gymnasium", "mujoco")


def make_dataset(
    name: str, *, overwrite: bool = False, parallel: int = 256, progress: CollectionProgress | None = None
) -> TransitionDataset:
    """Loads a bundled dataset, after making its data in the user's own folder where they are neither there nor shipped.

    Args:
        name: one of `bundled_names`.
        overwrite: make the data anew although they are there.
        parallel: episodes that advance together; the result does not depend on it.
        progress: called with the number of rows so far.

    Raises:
        DatasetNotFound: no such recipe, or nowhere to keep what is made.
        CheckpointError: the behaviour policy is missing or damaged.
        DatasetError: ``overwrite`` is asked for where the data are shipped.
    """
    if bundled_data(name) is not None:
        if overwrite:
            raise DatasetError(f"{name}: its data are shipped; to make them anew name another folder (--out FOLDER)")
    elif overwrite or not (folder_to_make(name) / "data").is_dir():
        collect_recipe(name, folder_to_make(name), parallel=parallel, overwrite=overwrite, progress=progress)
    return load_dataset(name)


def collect_recipe(
    name: str | Path,
    out: str | Path | None = None,
    *,
    parallel: int = 256,
    overwrite: bool = False,
    progress: CollectionProgress | None = None,
) -> TransitionDataset:
    """Makes a dataset anew, bit for bit on the same library versions and kind of processor.

    Args:
        name: a bundled dataset, or a recipe file.
        out: a folder for the data (in Minari's layout under ``data``), the recipe and a card. None writes nothing.
        parallel: episodes that advance together; the result does not depend on it.
        overwrite: replace existing data.
        progress: called with the number of rows so far.

    Raises:
        DatasetNotFound: no such recipe.
        ConfigError: the recipe is wrong.
        CheckpointError: a behaviour policy is missing or damaged.
        DatasetError: the environment does not fit the policy, or ``out`` holds data already.
        EvaluationError: the environment cannot be made, or not perturbed like that.
    """
    recipe, beside = load_recipe(name), recipe_file(name)[0].parent
    return make_recipe(recipe, beside, out, parallel=parallel, overwrite=overwrite, progress=progress)


def make_recipe(
    recipe: Recipe,
    beside: Path,
    out: str | Path | None = None,
    *,
    parallel: int = 256,
    overwrite: bool = False,
    progress: CollectionProgress | None = None,
) -> TransitionDataset:
    """`collect_recipe` for a recipe in memory, whose policies' paths are seen from the folder ``beside``."""
    if out is None:
        return _make(recipe, beside, None, parallel, overwrite, progress)
    with writing(out):
        return _make(recipe, beside, Path(out), parallel, overwrite, progress)


def _make(
    recipe: Recipe, beside: Path, out: Path | None, parallel: int, overwrite: bool, progress: CollectionProgress | None
) -> TransitionDataset:
    if out is not None:
        recover(out / "data")
        if (out / "data").exists() and not overwrite:
            raise DatasetError(f"{out / 'data'}: exists already; choose another folder, or overwrite it (--overwrite)")
    files = policies(recipe, beside)
    actors = [None if file is None else load_policy(file) for file in files]
    check_memory(system(recipe.environment), recipe.rows)
    made: list[TransitionDataset] = []
    for actor in actors:
        made.append(_collect_part(recipe, len(made), actor, parallel, progress))
    about = _about(recipe, files, made)
    dataset = replace(_joined(made), provenance={"source": "collect", "dataset_id": recipe.dataset_id, **about})
    if out is not None:
        _write(dataset, recipe, files, about["collection"], out)
    return dataset


def _collect_part(
    recipe: Recipe, number: int, actor: Policy | None, parallel: int, progress: CollectionProgress | None
) -> TransitionDataset:
    part = recipe.mixture[number]
    before = sum(earlier.transitions for earlier in recipe.mixture[:number])

    def tell(rows: int) -> None:
        if progress is not None:
            progress(before + rows)

    return collect(
        actor,
        recipe.environment,
        transitions=part.transitions,
        epsilon=part.epsilon,
        seed=recipe.seed,
        parallel=parallel,
        stochastic=part.stochastic,
        perturb=[change.perturbation() for change in part.perturb],
        progress=tell,
        part=number,
    )


def _joined(parts: Sequence[TransitionDataset]) -> TransitionDataset:
    """The parts one after the other, episodes numbered through."""
    if len(parts) == 1:
        return parts[0]
    tensors: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in TENSORS}
    before = torch.tensor([0, *(part.episodes for part in parts[:-1])]).cumsum(0)
    tensors["episode"] = torch.cat([part.episode + int(first) for part, first in zip(parts, before, strict=True)])
    return replace(parts[0], **tensors)


def _about(recipe: Recipe, files: Sequence[Path | None], made: Sequence[TransitionDataset]) -> dict[str, Any]:
    """How the data were made, as plain values: seed, versions, and of each part everything, modes filled in."""
    parts = []
    for part, file, data in zip(recipe.mixture, files, made, strict=True):
        sha = None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
        resolved = {"policy": _title(part), "perturb": data.provenance["perturb"], "policy_sha256": sha}
        parts.append({**part.model_dump(), **resolved})
    return {"collection": {"seed": recipe.seed, "parts": parts, "versions": _versions()}}


def _write(
    dataset: TransitionDataset,
    recipe: Recipe,
    files: Sequence[Path | None],
    collection: dict[str, Any],
    folder: Path,
) -> None:
    """Recipe, policies of one's own, card and data.

    The data are written first, for they are what a disk has no room for, and put in place last, for where they are the
    dataset is taken for whole.
    """
    about = {
        "dataset_id": recipe.dataset_id,
        "description": recipe.description,
        "collection": collection,
        "algorithm_name": "; ".join(_algorithm(part) for part in recipe.mixture),
    }
    with new_target(folder / "data", overwrite=True) as aside:
        fill_minari(dataset, aside, folder, about)
        kept = _with_policies_beside(recipe, files, folder)
        if not (folder / RECIPE).is_file() or load_recipe(folder / RECIPE) != kept:
            text = dump_yaml(kept.model_dump(exclude_unset=True), width=100, allow_unicode=True)
            write_text(folder / RECIPE, text)
        write_text(folder / "card.md", dataset_card(kept, dataset, collection))


def _with_policies_beside(recipe: Recipe, files: Sequence[Path | None], folder: Path) -> Recipe:
    """The recipe with its own (not bundled) policies copied into the folder, so that it can be made again from it."""
    own = [file for part, file in zip(recipe.mixture, files, strict=True) if file and _is_path(part)]
    names = {file: POLICY if len(set(own)) == 1 else f"policy-{own.index(file)}.safetensors" for file in own}
    for source, name in names.items():
        if source.resolve() != (folder / name).resolve():
            write_bytes(folder / name, source.read_bytes())
    content = recipe.model_dump(exclude_unset=True)
    blocks = content["parts"] if recipe.parts is not None else [content]
    for block, part, file in zip(blocks, recipe.mixture, files, strict=True):
        if file is not None and _is_path(part):
            block["policy"] = names[file]
    return Recipe(**content)


def _is_path(part: Part) -> bool:
    return part.policy is not None and ("/" in part.policy or "." in part.policy)


def _title(part: Part) -> str | None:
    """A policy's name; of a path no more than the last name, for the data may be read anywhere."""
    return None if part.policy is None else Path(part.policy).name


def _algorithm(part: Part) -> str:
    drawn = ", sampled" if part.stochastic else ""
    changed = "".join(f", {change.perturbation().label}" for change in part.perturb)
    return f"{_title(part) or 'random'}{drawn}, epsilon {part.epsilon:g}{changed}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
