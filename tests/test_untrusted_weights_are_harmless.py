"""Weights may come from anyone: policies, optimisers and checkpoints fit exactly or are refused in one clear line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from toys import line_dataset, make_learner

from offline_robust.errors import CheckpointError
from offline_robust.experiments import checkpoints
from offline_robust.experiments.checkpoints import load_checkpoint, require_like, save_checkpoint
from offline_robust.networks import CandidateSpec, PolicySpec, adamw, kinds, load_optimiser, load_policy, policies


def one_clear_line(error: pytest.ExceptionInfo[Exception]) -> None:
    text = str(error.value)
    assert len(text) < 600
    assert "\n" not in text


# --- Optimisers -----------------------------------------------------------------------------------------------------


def stepped() -> tuple[torch.optim.AdamW, list[nn.Parameter]]:
    """An optimiser of a large and a small parameter after one step."""
    parameters = [nn.Parameter(torch.zeros(5000)), nn.Parameter(torch.zeros(2))]
    optimiser = adamw([(parameters, 1e-3)], 0.0)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser, parameters


SETTINGS = [{"params": [1, 0]}, {"params": [0, 0]}, {"params": [[1], 0]}, {"lr": "abc"}, {"betas": ["x"]}, {"lr": 1e9}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_optimiser_settings_of_a_file_are_never_used(settings: dict[str, Any]) -> None:
    optimiser, parameters = stepped()
    state = optimiser.state_dict()
    before = [dict(group) for group in optimiser.param_groups]
    load_optimiser(optimiser, state | {"param_groups": [state["param_groups"][0] | settings]})
    assert optimiser.param_groups == before
    assert all(optimiser.state[p]["exp_avg"].shape == p.shape for p in parameters)


def change(index: int, **slots: Any) -> Any:
    return lambda state: state[index].update(slots)


SLOTS = {
    "one missing": lambda state: state.pop(1),
    "one more": lambda state: state.update({2: state[1]}),
    "other number": lambda state: state.update({7: state.pop(1)}),
    "not a mapping": lambda state: state.update({1: [1]}),
    "incomplete": lambda state: state[1].pop("exp_avg"),
    "other name": change(1, max_exp_avg_sq=torch.zeros(2)),
    "other shape": change(0, exp_avg=torch.zeros(2)),
    "no shape": change(0, exp_avg_sq=torch.zeros(())),
    "step of the parameter's shape": change(1, step=torch.zeros(2)),
    "double": change(1, exp_avg=torch.zeros(2).double()),
    "a number": change(1, step=1.0),
    "negative step": change(1, step=torch.tensor(-1.0)),
    "negative square": change(1, exp_avg_sq=-torch.ones(2)),
    "NaN": change(1, exp_avg=torch.full((2,), torch.nan)),
}


@pytest.mark.parametrize("name", SLOTS)
def test_optimiser_slots_that_do_not_fit_are_refused(name: str) -> None:
    optimiser, _ = stepped()
    state = optimiser.state_dict()
    SLOTS[name](state["state"])
    with pytest.raises(ValueError, match="optimiser"):
        load_optimiser(optimiser, state)


# --- Policies -------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A policy's file, to be damaged."""
    make_learner("sac", line_dataset()).policy.save(tmp_path / "policy.safetensors")
    return tmp_path / "policy.safetensors"


def header_only(path: Path, header: dict[str, Any], size: int = 0) -> None:
    """A safetensors file whose data are a hole in the disk."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)


KINDS: dict[str, PolicySpec] = {
    "tanh_gaussian": PolicySpec("tanh_gaussian", 3, (-1.0, -2.0), (1.0, 2.0), (8, 4)),
    "deterministic": PolicySpec("deterministic", 3, (-1.0, -2.0), (1.0, 2.0), (8, 4)),
    "greedy": PolicySpec("greedy", 3, (), (), (8, 4), action_count=5),
    "bcq": PolicySpec("bcq", 3, (-1.0, -2.0), (1.0, 2.0), (8, 4), candidates=CandidateSpec(7, 4, (6, 5, 9), 0.1)),
}


def test_every_kind_of_policy_is_among_those_tested() -> None:
    assert set(KINDS) == set(kinds.KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_shapes_checked_are_those_of_the_networks(kind: str) -> None:
    spec = KINDS[kind]
    actor = policies.build_actor(spec, torch.Generator())
    assert policies.tensor_shapes(spec) == {name: tuple(value.shape) for name, value in actor.state_dict().items()}


SPECS = {
    "wide": {"hidden": [60_000, 60_000]},
    "many layers": {"hidden": [64] * 200_000},
    "no layer": {"hidden": []},
    "a truth value as width": {"hidden": [True]},
    "too many weights": {"hidden": [8192] * 16},
    "observation_dim infinite": {"observation_dim": float("inf")},
    "observation_dim zero": {"observation_dim": 0},
    "bounds of unequal length": {"action_low": [-1, -1]},
    "no bounds": {"action_low": [], "action_high": []},
    "NaN bound": {"action_low": [float("nan")]},
    "infinite bound": {"action_high": [float("inf")]},
    "bound beyond floats": {"action_high": [10**400]},
    "bounds turned round": {"action_low": [1], "action_high": [-1]},
    "env_id is a list": {"env_id": [1]},
    "env_id is long": {"env_id": "x" * 300_000},
    "kind is a list": {"kind": ["tanh_gaussian"]},
    "kind unknown": {"kind": "x" * 300_000},
    "other part": {"x" * 5000: 1},
}


@pytest.mark.parametrize("name", SPECS)
def test_policy_descriptions_are_checked_before_networks_are_built(name: str, path: Path, monkeypatch) -> None:
    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["policy"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    content["spec"] |= SPECS[name]
    save_file(tensors, path, {"policy": json.dumps(content)})
    monkeypatch.setattr(policies, "build_actor", lambda *_: pytest.fail("built"))
    with pytest.raises(CheckpointError, match="description is damaged") as error:
        load_policy(path)
    one_clear_line(error)


CANDIDATES = {
    "none": None,
    "no mapping": 3,
    "no draw": {"count": 0},
    "many draws": {"count": 10**9},
    "latent infinite": {"latent_dim": float("inf")},
    "latent a truth value": {"latent_dim": True},
    "no hidden layer": {"hidden": []},
    "wide": {"hidden": [60_000]},
    "reach NaN": {"reach": float("nan")},
    "reach far": {"reach": 1e9},
    "reach is text": {"reach": "0.1"},
    "other part": {"x" * 5000: 1},
}


@pytest.mark.parametrize("name", CANDIDATES)
def test_candidates_of_a_bcq_policy_are_checked(name: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "policy.safetensors"
    make_learner("rfqi", line_dataset()).policy.save(path)
    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["policy"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change = CANDIDATES[name]
    content["spec"]["candidates"] = content["spec"]["candidates"] | change if isinstance(change, dict) else change
    save_file(tensors, path, {"policy": json.dumps(content)})
    monkeypatch.setattr(policies, "build_actor", lambda *_: pytest.fail("built"))
    with pytest.raises(CheckpointError, match="description is damaged") as error:
        load_policy(path)
    one_clear_line(error)


@pytest.mark.parametrize("tensor", ["draws", "decoder.layers.0.weight", "critic.layers.2.bias"])
def test_tensors_of_a_bcq_policy_fit_or_are_refused(tensor: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    make_learner("rfqi", line_dataset()).policy.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for change in (lambda t: t[:-1] if len(t) > 1 else t.repeat(2), lambda t: t * torch.nan):
        save_file(tensors | {tensor: change(tensors[tensor]).contiguous()}, path, metadata)
        with pytest.raises(CheckpointError, match=tensor.replace(".", r"\.")) as error:
            load_policy(path)
        one_clear_line(error)


TENSORS: dict[str, Any] = {
    "int64": lambda t: t.long(),
    "float64": lambda t: t.double() + 1e300,
    "complex": lambda t: t.to(torch.complex64),
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "bool": lambda t: t > 0,
    "NaN": lambda t: t * torch.nan,
    "other shape": lambda t: t[None],
}


@pytest.mark.parametrize("name", TENSORS)
def test_policy_tensors_of_another_kind_are_refused(name: str, path: Path) -> None:
    with safe_open(path, "pt") as file:
        tensors = {key: TENSORS[name](file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError) as error:
        load_policy(path)
    one_clear_line(error)


def test_tensors_that_a_policy_does_not_have_are_never_read(path: Path) -> None:
    size = 2**26
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    extra = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header_only(path, {"__metadata__": metadata, "x" * 5000: extra}, size)
    with pytest.raises(CheckpointError, match="do not fit the network") as error:
        load_policy(path)
    one_clear_line(error)


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": {"policy": "[" * 200_000}},
        {"__metadata__": {"policy": "[]"}},
        {"__metadata__": {"policy": '{"format": "' + "x" * 9000 + '"}'}},
        {"__metadata__": {"policy": '{"format": "offline-robust-policy-1", "spec": 3}'}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32" * 3000, "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000]}},
    ],
)
def test_policy_files_with_strange_headers_are_refused(header: dict[str, Any], tmp_path: Path) -> None:
    header_only(tmp_path / "p", header)
    with pytest.raises(CheckpointError) as error:
        load_policy(tmp_path / "p")
    one_clear_line(error)


# --- Checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoints_of_equal_state_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        optimiser, _ = stepped()
        save_checkpoint(tmp_path / name, {"optimiser": optimiser.state_dict()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded, (fresh, _) = load_checkpoint(tmp_path / "a"), stepped()
    require_like(fresh.state_dict(), loaded["optimiser"], tmp_path)
    load_optimiser(fresh, loaded["optimiser"])


def described(state: str) -> dict[str, Any]:
    return {"__metadata__": {"checkpoint": '{"format":"offline-robust-checkpoint-1","state":' + state + "}"}}


ONE = '{"":[["a","tensor:a"]]}'
HOLE = {"dtype": "F32", "shape": [2**24], "data_offsets": [0, 2**26]}
STRANGE = {
    "deep JSON": ({"__metadata__": {"checkpoint": "[" * 200_000}}, 0),
    "deep state": (described('{"":[["a",' * 50_000 + "1" + "]]}" * 50_000), 0),
    "list": ({"__metadata__": {"checkpoint": "[]"}}, 0),
    "other format": ({"__metadata__": {"checkpoint": '{"format": "' + "x" * 9000 + '"}'}}, 0),
    "state is a number": (described("1"), 0),
    "key is a list": (described('{"":[[[1],2]]}'), 0),
    "missing tensor": (described(ONE), 0),
    "tensor that no part names": (described('{"":[]}') | {"a": HOLE}, 2**26),
    "tensor named twice": (described('{"":[["a","tensor:a"],["b","tensor:a"]]}') | {"a": HOLE}, 2**26),
    "float8": (described(ONE) | {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, 4),
    "bfloat16": (described(ONE) | {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, 4),
    "unknown type": (described(ONE) | {"a": {"dtype": "X" * 9000, "shape": [2], "data_offsets": [0, 4]}}, 4),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_checkpoints_are_refused(name: str, tmp_path: Path) -> None:
    header_only(tmp_path / "c", *STRANGE[name])
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "c")
    one_clear_line(error)


def test_checkpoints_are_bounded_in_size(tmp_path: Path, monkeypatch) -> None:
    save_checkpoint(tmp_path / "c", {"a": torch.zeros(1000)})
    load_checkpoint(tmp_path / "c")
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="larger than 1,000 bytes"):
        load_checkpoint(tmp_path / "c")
