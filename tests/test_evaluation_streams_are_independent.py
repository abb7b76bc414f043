"""Evaluation: numbers that equal a plain Gymnasium loop, and that nothing else in the suite can change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offline_robust.collection.behaviour import Behaviour
from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import GymnasiumBatch, Perturbation, Stages, Suite, system
from offline_robust.errors import EvaluationError
from offline_robust.evaluation import evaluate
from offline_robust.networks import Policy, policy_spec

ENV = "Pendulum-v1"


def _swing(observations: NDArray[Any]) -> NDArray[np.float32]:
    upright = np.where(observations[:, 0] > 0.8, -9.0 * observations[:, 1], 2.0 * np.sign(observations[:, 2]))
    return np.clip(upright - observations[:, 2], -2.0, 2.0)[:, None].astype(np.float32)


def _layer(
    levels: dict[str, float], episodes: range, actions: gym.Space[Any], observations: int = 3, seed: int = 0
) -> Stages:
    of = replace(system(ENV), action_space=actions, observation_space=gym.spaces.Box(-1, 1, (observations,)))
    return Stages(of, [of.ready(Perturbation(name, level)) for name, level in levels.items()], seed, episodes)


def _returns(results: Any, condition: str) -> NDArray[np.float64]:
    frame = results.frame
    chosen: NDArray[np.float64] = frame.loc[frame["condition"] == condition, "return"].to_numpy()
    return chosen


def test_a_perturbed_return_equals_a_plain_gymnasium_loop() -> None:
    results = evaluate(_swing, ENV, perturb="length=0.7,1.2", episodes=3, seed=4)
    rows = results.frame[results.frame["condition"] == "length x1.2"]
    for _, row in rows.iterrows():
        env = gym.make(ENV)
        env.unwrapped.l = 1.0 * 1.2  # type: ignore[attr-defined]
        observation, _ = env.reset(seed=int(row["episode_seed"]))
        total, steps, done = 0.0, 0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(_swing(observation[None])[0])
            total, steps, done = total + float(reward), steps + 1, terminated or truncated
        assert row["return"] == total
        assert (row["length"], row["terminated"]) == (steps, False)


def test_adding_levels_parameters_or_episodes_changes_no_other_number() -> None:
    few = evaluate(_swing, ENV, perturb="random_action=0.3", episodes=4, seed=1)
    many = evaluate(_swing, ENV, perturb=["random_action=0.1,0.3", "length=1"], episodes=4, seed=1)
    np.testing.assert_array_equal(
        _returns(few, "random_action = 0.3"), _returns(many, "random_action = 0.3, length x1")
    )
    longer = evaluate(_swing, ENV, perturb="random_action=0.3", episodes=7, seed=1)
    np.testing.assert_array_equal(_returns(few, "random_action = 0.3"), _returns(longer, "random_action = 0.3")[:4])
    assert (_returns(few, "nominal") != _returns(few, "random_action = 0.3")).all()


def test_start_states_are_shared_by_conditions_and_policies_and_move_with_the_seed() -> None:
    seen: list[NDArray[Any]] = []

    def watch(observations: NDArray[Any]) -> NDArray[np.float32]:
        seen.append(observations.copy())
        return np.zeros((len(observations), 1), np.float32)

    evaluate(watch, ENV, perturb="length=0.5,1", episodes=3, max_steps=1)
    evaluate(watch, ENV, episodes=3, max_steps=1, seed=1)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).any(1).all()
    assert len(np.unique(seen[0], axis=0)) == 3


def test_noise_of_a_higher_level_scales_the_same_draws_and_each_episode_has_its_own() -> None:
    actions, zeros = gym.spaces.Box(-np.inf, np.inf, (2,)), np.zeros((4, 3))

    def draws(level: float, episodes: range, seed: int = 0) -> NDArray[np.float64]:
        layer = _layer({"observation_noise": level, "action_noise": 1.0}, episodes, actions, seed=seed)
        # 100 steps: the draws come in blocks, and the seam must not show.
        return np.stack([layer.observe(zeros[: len(episodes)]) for _ in range(100)])

    one = draws(1.0, range(4))
    np.testing.assert_allclose(draws(2.0, range(4)), 2.0 * one)
    np.testing.assert_array_equal(draws(1.0, range(2)), one[:, :2])
    assert (draws(1.0, range(4), seed=1) != one).all()
    assert np.abs(np.corrcoef(one[:, :, 0].T) - np.eye(4)).max() < 0.4
    assert abs(one.mean()) < 0.1
    assert abs(one.std() - 1.0) < 0.1


def test_random_actions_replace_the_stated_share_within_the_action_space() -> None:
    layer = _layer({"random_action": 0.25}, range(50), gym.spaces.Box(-2.0, 1.0, (1,)))
    executed = np.stack([layer.act(np.full((50, 1), 0.5, np.float32)) for _ in range(80)])
    replaced = executed[executed != 0.5]
    assert abs(replaced.size / executed.size - 0.25) < 0.03
    assert replaced.min() >= -2.0
    assert replaced.max() <= 1.0
    assert abs(replaced.mean() + 0.5) < 0.1
    layer = _layer({"random_action": 1.0}, range(50), gym.spaces.Discrete(3, start=1))
    chosen = np.stack([layer.act(np.ones(50, np.int64)) for _ in range(40)])
    np.testing.assert_allclose(np.bincount(chosen.ravel(), minlength=4)[1:] / chosen.size, 1 / 3, atol=0.04)


def test_action_noise_stays_in_the_action_space_and_the_reward_stays_the_environments() -> None:
    layer = _layer({"action_noise": 3.0}, range(9), gym.spaces.Box(-1.0, 1.0, (2,)))
    executed = layer.act(np.zeros((9, 2), np.float32))
    assert executed.dtype == np.float32
    assert np.abs(executed).max() == 1.0
    # A policy that ignores what it sees earns the same however noisy the sensor is.
    blind = evaluate(lambda o: np.ones((len(o), 1), np.float32), ENV, perturb="observation_noise=0,5", episodes=3)
    np.testing.assert_array_equal(_returns(blind, "observation_noise = 0"), _returns(blind, "observation_noise = 5"))


def test_episodes_that_end_early_stop_counting() -> None:
    def lean(observations: NDArray[Any]) -> NDArray[np.int64]:
        return (observations[:, 2] > 0).astype(np.int64)

    results = evaluate(lean, "CartPole-v1", perturb="random_action=0,0.5", episodes=6, seed=0)
    rows = results.frame[results.frame["condition"] == "random_action = 0"]
    assert rows["terminated"].all()
    assert rows["length"].nunique() > 1
    for _, row in rows.iterrows():
        env = gym.make("CartPole-v1")
        observation, _ = env.reset(seed=int(row["episode_seed"]))
        steps, done = 0, False
        while not done:
            observation, _, terminated, truncated, _ = env.step(int(lean(observation[None])[0]))
            steps, done = steps + 1, terminated or truncated
        assert row["length"] == steps == row["return"]


def test_an_ended_episode_is_frozen() -> None:
    batch = GymnasiumBatch(system("CartPole-v1"), [(), ()])
    batch.reset([0, 1])
    while batch.live.all():
        before = batch.step(np.array([1, batch.live.sum() % 2]))[0]
    over = int(np.flatnonzero(~batch.live)[0])
    after, rewards, terminated, truncated = batch.step(np.array([0, 1]))
    np.testing.assert_array_equal(after[over], before[over])
    assert (rewards[over], terminated[over], truncated[over]) == (0.0, False, False)


def test_a_torch_policy_of_ours_is_called_once_per_condition_and_step() -> None:
    spec = policy_spec("tanh_gaussian", 3, gym.spaces.Box(-2.0, 2.0, (1,)), (8,), EnvironmentSpec(ENV))
    policy = Policy(spec)
    calls = []
    act = policy.act
    policy.act = lambda observations, **_: calls.append(len(observations)) or act(observations)  # type: ignore
    results = evaluate(policy, ENV, suite="pendulum-torque", episodes=4, max_steps=10, learner="x", run="r")
    assert calls == [4] * 10 * 6
    assert set(results.frame["learner"]) == {"x"}
    assert (results.frame["length"] == 10).all()
    tensor = evaluate(lambda o: torch.as_tensor(act(o)), ENV, suite="pendulum-torque", episodes=4, max_steps=10)
    np.testing.assert_array_equal(tensor.frame["return"], results.frame["return"])


HOPPER = EnvironmentSpec("Hopper-v5")


@pytest.mark.parametrize(
    ("policy", "env_id", "options", "message"),
    [
        (Policy(policy_spec("deterministic", 11, gym.spaces.Box(-1, 1, (3,)), (4,), HOPPER)), ENV, {},
         "takes 11 observations .Hopper-v5., Pendulum-v1 gives 3"),
        (Policy(policy_spec("deterministic", 3, gym.spaces.Box(-1, 1, (2,)), (4,), None)), ENV, {},
         "gives 2 continuous actions"),
        (lambda o: np.zeros((len(o), 2)), ENV, {}, "shape .20, 2."),
        (lambda o: np.full((len(o), 1), np.nan), ENV, {}, "NaN"),
        (lambda o: np.zeros((len(o), 1)), "CartPole-v1", {}, "whole numbers"),
        (lambda o: np.full(len(o), 2), "CartPole-v1", {}, "outside 0..1"),
        (lambda o: np.zeros(len(o), int), "CartPole-v1", {"perturb": "action_noise=1"}, "continuous actions"),
        (lambda o: np.zeros(len(o), int), "CartPole-v1", {"perturb": "max_torque=1.1"}, "no parameter 'max_torque'"),
        (_swing, "Pendulm-v1", {}, "did you mean .*'Pendulum-v1'"),
        (_swing, ENV, {"env_kwargs": {"gravity": 3}}, "unexpected keyword"),
        (_swing, ENV, {"suite": "pendulum-length", "perturb": "mass=1"}, "not both"),
        (_swing, ENV, {"episodes": 0}, "episodes must be"),
        (_swing, ENV, {"seed": -1}, "seed must be"),
        (_swing, "CarRacing-v3", {}, "images of shape"),
        (3, ENV, {}, "a policy is a function"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(policy: Any, env_id: str, options: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate(policy, env_id, **options)
    assert "\n" not in str(caught.value)


def test_a_bad_last_condition_is_refused_before_the_first_one_runs() -> None:
    def never(observations: NDArray[Any]) -> NDArray[Any]:
        raise AssertionError("the policy was called")

    with pytest.raises(EvaluationError, match="physical range"):
        evaluate(never, ENV, perturb="mass=1,2,-1")
    with pytest.raises(EvaluationError, match="continuous"):
        evaluate(never, "CartPole-v1", perturb="action_noise=0,1")


def test_progress_names_every_batch_of_conditions_and_meta_says_what_was_run() -> None:
    told: list[tuple[int, int, str]] = []
    results = evaluate(
        _swing, ENV, perturb="length=0.5,1", episodes=2, seed=3, max_steps=5, progress=lambda *a: told.append(a)
    )
    assert told == [(0, 2, "length x0.5"), (2, 2, "")]  # both conditions run together
    assert {k: results.meta[k] for k in ("env_id", "episodes", "seed", "checkpoint")} == {
        "env_id": ENV, "episodes": 2, "seed": 3, "checkpoint": "last"
    }  # fmt: skip
    assert results.meta["versions"]["gymnasium"] == gym.__version__
    assert isinstance(evaluate(_swing, ENV, suite=Suite.of("none", ()), episodes=1, max_steps=1).meta["suite"], str)


def test_evaluation_starts_are_none_of_those_that_collection_draws_from_the_same_seed() -> None:
    space = system(ENV).action_space
    assert isinstance(space, gym.spaces.Box)
    logged = {seed for part in (0, 1) for seed in Behaviour(None, space, 0.0, False, 0, part).begin(range(200))}
    frame = evaluate(_swing, ENV, episodes=50, max_steps=1).frame
    assert not logged & set(frame["episode_seed"])
    assert frame["episode_seed"].nunique() == 50
