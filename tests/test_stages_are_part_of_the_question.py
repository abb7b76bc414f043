"""Stages between system and policy: one class each, seen by the rollout as any other, and never mixed up in results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import (
    ParameterSpec,
    Perturbation,
    Site,
    Stage,
    Stages,
    noise,
    perturbations,
    register_stage,
    system,
)
from offline_robust.envs import stages as stages_module
from offline_robust.envs.perturbations import ANY
from offline_robust.envs.systems import forget
from offline_robust.errors import EvaluationError
from offline_robust.evaluation import EvaluationRequest, Results, answer, evaluate
from offline_robust.experiments.earlier import earlier_results, name_of, save_results
from offline_robust.experiments.evaluating import compare_runs, open_subject
from offline_robust.networks import Policy, policy_spec

ENV = "Pendulum-v1"


class Attack(Stage):
    """Moves what a victim with gradients sees, within a budget, to where it does less."""

    told: list[tuple[NDArray[Any], NDArray[Any]]]

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        if not isinstance(site.victim, Policy):
            raise EvaluationError(f"{site.perturbation.parameter} needs a policy with gradients")
        self._actor = site.victim.actor

    def observe(self, true: NDArray[Any], seen: NDArray[Any]) -> NDArray[Any]:
        Attack.told.append((true.copy(), seen.copy()))
        x = torch.as_tensor(seen, dtype=torch.float32).requires_grad_()
        (slope,) = torch.autograd.grad(self._actor(x).square().sum(), x)
        shown = seen - self.next_values()[:, None] * np.sign(slope.numpy())
        return shown.astype(seen.dtype)


class Sharper(Attack):
    """The same parameter, and another way to act."""

    def observe(self, true: NDArray[Any], seen: NDArray[Any]) -> NDArray[Any]:
        return super().observe(true, super().observe(true, seen))


class Learned(Attack):
    """Depends on weights, which its source does not show."""

    weights = 1.0

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {self.weights}"


class Disturbance(Stage):
    """Adds a force against the motion, and knows the simulation that it acts in."""

    told: list[tuple[int, NDArray[Any]]]

    def start(self, batch: Any, rows: slice) -> None:
        self._batch, self._rows = batch, rows

    def act(self, true: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
        live = self._batch.live[self._rows]
        Disturbance.told.append((len(live), true.copy()))
        against: NDArray[Any] = actions - self.next_values()[:, None] * np.sign(true[:, 2:])
        return against.astype(actions.dtype)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry as it was, and a stage on each side of the policy."""
    monkeypatch.setattr(perturbations, "_REGISTRY", dict(perturbations._REGISTRY))
    monkeypatch.setattr(stages_module, "_STAGES", dict(stages_module._STAGES))
    Attack.told, Disturbance.told = [], []
    register_stage(ParameterSpec("toy_attack", "-", 0.0, 1.0, "absolute", "budget", "observation", env=ANY), Attack)
    register_stage(ParameterSpec("toy_force", "N m", 0.0, 9.0, "absolute", "force", "action", env=ANY), Disturbance)
    yield
    monkeypatch.undo()
    forget()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    act = Policy.act

    def count(self: Policy, observations: Any, **options: Any) -> Any:
        counted.append(len(observations))
        return act(self, observations, **options)

    monkeypatch.setattr(Policy, "act", count)
    return counted


def make_policy(seed: int = 0) -> Policy:
    policy = Policy(policy_spec("deterministic", 3, gym.spaces.Box(-2.0, 2.0, (1,)), (8,), EnvironmentSpec(ENV)))
    rng = np.random.default_rng(seed)
    for parameter in policy.actor.parameters():
        parameter.data.copy_(parameter.new_tensor(rng.normal(size=parameter.shape)))
    return policy


def run(cells: Path | None = None, policy: Any = None, **asked: Any) -> Results:
    chosen = {"episodes": 3, "max_steps": 6, "run": "r", "learner": "x"} | asked
    return evaluate(policy or make_policy(), ENV, cells=cells, **chosen)


def returns(results: Results, condition: str) -> NDArray[np.float64]:
    frame = results.frame
    found: NDArray[np.float64] = frame.loc[frame["condition"] == condition, "return"].to_numpy()
    return found


def another(name: str, kind: type[Stage]) -> None:
    """Another class for a parameter that is there."""
    stages_module._STAGES[name] = kind


def test_an_attack_is_given_truth_and_victim_and_stays_within_its_budget() -> None:
    policy = make_policy()
    before = {name: value.clone() for name, value in policy.actor.state_dict().items()}
    shown: list[NDArray[Any]] = []
    act = policy.act

    def watch(observations: Any, **options: Any) -> Any:
        shown.append(observations.copy())
        return act(observations, **options)

    policy.act = watch  # type: ignore[method-assign, assignment]
    results = run(None, policy, perturb=["observation_bias=0.5", "toy_attack=0.25"], episodes=2)
    assert len(Attack.told) == 6
    for true, seen in Attack.told:  # noise first, then the attack on what is left to see
        np.testing.assert_allclose(seen, true + 0.5, rtol=1e-6)
    attacked = [
        own for own in shown if any(np.allclose(np.abs(own - seen), 0.25, atol=1e-5) for _, seen in Attack.told)
    ]
    assert len(attacked) == 6
    assert (returns(results, "observation_bias = 0.5, toy_attack = 0.25") != returns(results, "nominal")).all()
    assert all(torch.equal(value, before[name]) for name, value in policy.actor.state_dict().items())


def test_without_a_budget_nothing_is_changed() -> None:
    results = run(perturb="toy_attack=0,0.3")
    assert not Attack.told[6:]  # the one with a budget alone was at work
    np.testing.assert_array_equal(returns(results, "toy_attack = 0"), returns(run(), "nominal"))
    assert results.frame.loc[results.frame["condition"] == "toy_attack = 0", "nominal"].all()


def test_a_disturbance_acts_on_actions_and_knows_the_simulation() -> None:
    results = run(perturb="toy_force=0,1.5", episodes=3)
    assert [count for count, _ in Disturbance.told] == [3] * 6
    assert (returns(results, "toy_force = 0") != returns(results, "toy_force = 1.5")).all()
    layer = Stages(system(ENV), [system(ENV).ready(Perturbation("toy_force", 3.0))], 0, range(2))
    layer.start(type("Batch", (), {"live": np.ones(2, bool)})(), slice(0, 2))
    layer.observe(np.array([[1.0, 0.0, 4.0], [1.0, 0.0, -4.0]]))
    np.testing.assert_array_equal(layer.act(np.zeros((2, 1))), [[-2.0], [2.0]])  # within the action space


def test_a_budget_may_move_inside_an_episode() -> None:
    of = system(ENV)
    ramp = of.ready(Perturbation("toy_force", 1.0, schedule="ramp", start=0.0, period=2))
    layer = Stages(of, [ramp], 0, range(1))
    layer.start(type("Batch", (), {"live": np.ones(1, bool)})(), slice(0, 1))
    done = []
    for _ in range(3):
        layer.observe(np.array([[1.0, 0.0, 1.0]]))
        done.append(float(layer.act(np.zeros((1, 1)))[0, 0]))
    assert done == [0.0, -0.5, -1.0]


def test_stages_stand_under_every_condition_and_leave_the_nominal_one() -> None:
    results = run(perturb="length=0.8,1", stages="toy_attack=0.2")
    assert list(dict.fromkeys(results.frame["condition"])) == [
        "nominal", "length x0.8, toy_attack = 0.2", "length x1, toy_attack = 0.2"
    ]  # fmt: skip
    assert set(results.frame.loc[results.frame["nominal"], "condition"]) == {"nominal"}
    alone = run(perturb=["length=0.8", "toy_attack=0.2"])
    label = "length x0.8, toy_attack = 0.2"
    np.testing.assert_array_equal(returns(results, label), returns(alone, label))
    np.testing.assert_array_equal(
        answer(make_policy(), EvaluationRequest(stages=Perturbation("toy_attack", 0.2), episodes=3, max_steps=6))
        .frame["return"],
        run(perturb="toy_attack=0.2").frame["return"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "conditions"),
    [
        (dict, 0),
        (lambda: {"perturb": "toy_attack=0.30000000000004"}, 1),  # the label says 0.3 all the same
        (lambda: {"perturb": "toy_force=0.3"}, 1),
        (lambda: another("toy_attack", Sharper) or {}, 1),
        (lambda: {"stages": "toy_force=1"}, 2),  # beside the nominal system, which is there
    ],
)
def test_what_is_finished_serves_the_same_stages_alone(
    tmp_path: Path, calls: list[int], change: Any, conditions: int
) -> None:
    run(tmp_path, perturb="toy_attack=0.3")
    calls.clear()
    asked = {"perturb": "toy_attack=0.3"} | change()
    found = run(tmp_path, **asked)
    assert len(calls) == 6 * conditions
    np.testing.assert_array_equal(found.frame["return"], run(**asked).frame["return"])


def test_weights_that_a_stage_adds_to_its_fingerprint_tell_results_apart(
    tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    another("toy_attack", Learned)
    first = run(tmp_path, perturb="toy_attack=0.3")
    monkeypatch.setattr(Learned, "weights", 2.0)
    calls.clear()
    second = run(tmp_path, perturb="toy_attack=0.3")
    assert len(calls) == 6
    assert name_of(first) != name_of(second)  # two questions: neither table replaces the other
    for table in (first, second):
        save_results(tmp_path / "run", table)
    (kept,) = earlier_results(tmp_path / "run")
    assert kept.stem == name_of(first)
    save_results(tmp_path / "run", run(perturb="toy_attack=0.3", episodes=2))  # the same question, asked again
    assert [path.stem for path in earlier_results(tmp_path / "run")] == [name_of(first)]


def test_one_name_for_two_classes_of_the_library_is_two_stages() -> None:
    of, found = system(ENV), set()
    for kind in (noise.Uniform, noise.Cauchy):
        another("toy_attack", kind)
        found.add(Stages(of, [of.ready(Perturbation("toy_attack", 0.1))], 0, ()).fingerprints)
    assert len(found) == 2


def test_runs_are_compared_behind_a_stage(tmp_path: Path, calls: list[int]) -> None:
    subject, asked = open_subject("pendulum-td3"), {"perturb": ["toy_attack=0.1"], "episodes": 2, "max_steps": 4}
    first = compare_runs([subject], cells=tmp_path, **asked)
    assert set(first.frame["condition"]) == {"nominal", "toy_attack = 0.1"}
    calls.clear()
    again = compare_runs([subject], EvaluationRequest(**asked), cells=tmp_path)
    assert calls == []
    np.testing.assert_array_equal(again.frame["return"], first.frame["return"])


def blind(observations: NDArray[Any]) -> NDArray[Any]:
    raise AssertionError("the policy was called")


@pytest.mark.parametrize(
    ("policy", "env", "asked", "message"),
    [
        (blind, ENV, {"perturb": "toy_attack=0.1"}, "toy_attack needs a policy with gradients"),
        (blind, "CartPole-v1", {"perturb": "toy_force=1"}, "toy_force needs continuous actions; with discrete ones"),
        (blind, ENV, {"perturb": "toy_force=10"}, "outside its physical range"),
        (blind, ENV, {"stages": "length=0.8"}, "length acts on the physics"),
        (blind, ENV, {"stages": "toy_force=1,2"}, "a stage has one level"),
        (blind, ENV, {"stages": "toy_forc=1"}, "did you mean .*toy_force"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(policy: Any, env: str, asked: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate(policy, env, episodes=1, **asked)
    assert "\n" not in str(caught.value)


def test_a_stage_acts_outside_the_physics_and_under_a_name_of_its_own() -> None:
    for spec, message in (
        (ParameterSpec("toy_mass", "kg", 0.0, 1.0, "scale", "mass", env=ENV), "not on the physics"),
        (ParameterSpec("toy_force", "N", 0.0, 1.0, "absolute", "force", "action", env=ANY), "already has a parameter"),
    ):
        with pytest.raises(EvaluationError, match=message):
            register_stage(spec, Disturbance)
