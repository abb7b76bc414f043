"""Collected data depend on the seed alone: not on how many environments run at once, not on global state."""

from __future__ import annotations

import hashlib

import gymnasium as gym
import numpy as np
import pytest
import torch

from offline_robust.collection import collect, load_recipe
from offline_robust.datasets import TransitionDataset, load_dataset
from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import Perturbation, system
from offline_robust.errors import DatasetError, EvaluationError
from offline_robust.files import bundled
from offline_robust.networks import Policy, PolicySpec, build_actor, load_policy, policy_spec


def random_policy(env_id: str, width: int, kind: str = "deterministic") -> Policy:
    if kind == "greedy":
        spec = PolicySpec(
            "greedy", width, (), (), (32, 32), EnvironmentSpec(env_id), int(system(env_id).action_space.n)
        )
    else:
        spec = policy_spec(kind, width, system(env_id).action_space, (32, 32), EnvironmentSpec(env_id))
    actor = build_actor(spec, torch.Generator().manual_seed(1))
    if kind == "tanh_gaussian":
        torch.nn.init.normal_(actor.mean.weight, generator=torch.Generator().manual_seed(2))
    return Policy(spec, actor)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return random_policy("Pendulum-v1", 3)


def rolled(policy: Policy, **options: object) -> TransitionDataset:
    chosen = {"transitions": 700, "epsilon": 0.5, "seed": 3} | options
    return collect(policy, "Pendulum-v1", **chosen)  # type: ignore[arg-type]


def test_the_number_of_environments_changes_nothing(policy: Policy) -> None:
    assert len({rolled(policy, parallel=parallel).fingerprint for parallel in (1, 3, 64)}) == 1


class Walk(gym.Env):
    """A point that is pushed about, and falls when it leaves [-1, 1]: episodes of very different lengths."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.5, 0.5, 2)
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple:
        self.state += [0.1 * self.state[1], 0.5 * float(action[0]) + 0.1 * self.np_random.normal()]
        return self.state.copy(), float(-(self.state[0] ** 2)), bool(abs(self.state[0]) > 1.0), False, {}


gym.register("tests/Walk-v0", Walk, max_episode_steps=60)


def test_nor_does_it_where_episodes_end_early() -> None:
    walker = random_policy("tests/Walk-v0", 2)
    runs = [collect(walker, "tests/Walk-v0", transitions=600, epsilon=0.5, seed=1, parallel=n) for n in (1, 5, 70)]
    assert len({run.fingerprint for run in runs}) == 1
    assert len(set(torch.bincount(runs[0].episode).tolist())) > 5
    assert bool(runs[0].terminated.any())
    assert bool(runs[0].truncated.any())


@pytest.mark.parametrize(
    ("env_id", "width", "kind", "options"),
    [
        ("CartPole-v1", 4, "greedy", {"epsilon": 0.2}),
        ("ContinuousCartPole-v0", 4, "deterministic", {"epsilon": 0.5}),
        ("Hopper-v5", 11, "tanh_gaussian", {"epsilon": 0.3, "stochastic": True}),
        ("HalfCheetah-v5", 17, "tanh_gaussian", {"epsilon": 0.1, "perturb": "ctrlrange=scale@0.85"}),
    ],
)
def test_nor_on_any_engine(env_id: str, width: int, kind: str, options: dict) -> None:
    policy = random_policy(env_id, width, kind)
    runs = [collect(policy, env_id, transitions=400, seed=2, parallel=n, **options) for n in (1, 7, 64)]
    assert len({run.fingerprint for run in runs}) == 1
    assert len(runs[0]) == 400
    assert runs[0].env_id == env_id


class Placed(torch.nn.Module):
    """Gives away in which row of the forward an episode sits."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        assert len(observations) == 64
        return torch.arange(64, dtype=observations.dtype)[:, None] / 64.0


def test_an_episode_sits_in_the_same_row_of_every_forward() -> None:
    """What a matrix product rounds may depend on the row, and on how many rows there are."""
    walker = Policy(random_policy("tests/Walk-v0", 2).spec, Placed())
    for parallel in (1, 3, 200):
        run = collect(walker, "tests/Walk-v0", transitions=3_000, parallel=parallel)
        assert run.episodes > 128
        torch.testing.assert_close(run.actions[:, 0], (run.episode % 64) / 64.0)


def test_the_seed_decides(policy: Policy) -> None:
    np.random.seed(0)  # noqa: NPY002 - the point is that global state is not used
    torch.manual_seed(0)
    first = rolled(policy)
    assert first.fingerprint == rolled(policy).fingerprint
    assert first.fingerprint != rolled(policy, seed=4).fingerprint


def test_a_longer_collection_begins_with_the_shorter_one(policy: Policy) -> None:
    short, long = rolled(policy, transitions=250), rolled(policy, transitions=700)
    assert torch.equal(long.observations[:250], short.observations)
    assert torch.equal(long.actions[:250], short.actions)


def test_rows_replay_in_the_environment(policy: Policy) -> None:
    """An independent loop: the episode's seed, the logged actions, and the environment gives the logged rows."""
    dataset = rolled(policy, parallel=2)
    env = gym.make("Pendulum-v1")
    row = 0
    for number in range(dataset.episodes):
        seed = int(np.random.SeedSequence([3, number, 0]).generate_state(1)[0])
        observation, _ = env.reset(seed=seed)
        while row < len(dataset) and dataset.episode[row] == number:
            np.testing.assert_array_equal(dataset.observations[row], observation)
            observation, reward, *_ = env.step(dataset.actions[row].numpy())
            np.testing.assert_array_equal(dataset.next_observations[row], observation)
            assert dataset.rewards[row] == np.float32(reward)
            row += 1
    env.close()
    assert row == len(dataset) == 700


def test_epsilon_is_the_share_of_random_actions(policy: Policy) -> None:
    greedy = rolled(policy, epsilon=0.0)
    torch.testing.assert_close(greedy.actions, policy.act(greedy.observations), rtol=0, atol=1e-5)
    mixed = rolled(policy, epsilon=0.25, transitions=2_000)
    random = (mixed.actions - policy.act(mixed.observations)).abs().squeeze(1) > 1e-4
    assert 0.2 < float(random.float().mean()) < 0.3


def test_the_end_is_cut_to_the_row_and_truncated(policy: Policy) -> None:
    dataset = rolled(policy, transitions=450)
    assert torch.bincount(dataset.episode).tolist() == [200, 200, 50]
    assert dataset.truncated.nonzero().flatten().tolist() == [199, 399, 449]
    assert not bool(dataset.terminated.any())
    assert bool(dataset.next_valid.all())


def test_a_greedy_policy_takes_its_best_action_except_where_it_explores() -> None:
    policy = random_policy("CartPole-v1", 4, "greedy")
    greedy = collect(policy, "CartPole-v1", transitions=300, seed=0)
    assert greedy.actions.dtype == torch.int64
    torch.testing.assert_close(greedy.actions, policy.act(greedy.observations), rtol=0, atol=0)
    mixed = collect(policy, "CartPole-v1", transitions=3_000, epsilon=0.4, seed=0)
    other = (mixed.actions != policy.act(mixed.observations)).float().mean()
    assert 0.17 < float(other) < 0.23  # half of the uniform actions are the greedy one


def test_stochastic_actions_follow_the_policy_s_distribution() -> None:
    policy = random_policy("Pendulum-v1", 3, "tanh_gaussian")
    drawn = rolled(policy, epsilon=0.0, stochastic=True, transitions=2_000)
    assert drawn.fingerprint != rolled(policy, epsilon=0.0, transitions=2_000).fingerprint
    # What the draws must have been: standard normal, and none the same.
    actor = policy.actor
    with torch.no_grad():
        hidden = torch.relu(actor.trunk(drawn.observations))
        mean, log_std = actor.mean(hidden), actor.log_std(hidden)
    u = torch.atanh((drawn.actions / 2.0).clamp(-0.999, 0.999))
    inner = drawn.actions.abs() < 1.99
    noise = ((u - mean) / log_std.exp())[inner]
    assert abs(float(noise.median())) < 0.1
    assert 0.6 < float(noise.abs().median()) < 0.75  # 0.6745 for a standard normal
    assert len(noise.unique()) > 0.99 * len(noise)


def test_exploration_is_the_same_whether_the_policy_is_sampled_or_not() -> None:
    policy = random_policy("Pendulum-v1", 3, "tanh_gaussian")
    mean, drawn = (rolled(policy, epsilon=1.0, stochastic=stochastic) for stochastic in (False, True))
    assert mean.fingerprint == drawn.fingerprint


def test_perturbed_physics_move_the_rows_and_are_told() -> None:
    policy = random_policy("Pendulum-v1", 3)
    nominal, weak = rolled(policy, epsilon=1.0), rolled(policy, epsilon=1.0, perturb=["max_torque=0.25"])
    # The same start and the same actions asked for, as they were asked for; another motion.
    torch.testing.assert_close(weak.observations[0], nominal.observations[0])
    torch.testing.assert_close(weak.actions, nominal.actions)
    assert not torch.equal(weak.next_observations[:200], nominal.next_observations[:200])
    assert weak.provenance["perturb"] == [{"parameter": "max_torque", "level": 0.25, "mode": "scale"}]
    given = rolled(policy, epsilon=1.0, perturb=[Perturbation("max_torque", 0.25)])
    assert given.fingerprint == weak.fingerprint


@pytest.mark.parametrize(
    ("perturb", "said"),
    [
        ("max_torque=0.5,0.6", "one level"),
        ("max_torqe=0.5", "did you mean 'max_torque'"),
        ("max_torque=-1", "outside its physical range"),
        ("observation_noise=0.1", "does not act on the physics"),
        ([Perturbation("mass", 2.0, schedule="uniform")], "hold still"),
    ],
)
def test_perturbations_that_data_cannot_have_are_refused(policy: Policy, perturb: object, said: str) -> None:
    with pytest.raises((DatasetError, EvaluationError), match=said):
        rolled(policy, perturb=perturb)


def test_parts_share_no_stream(policy: Policy) -> None:
    first, second = rolled(policy, part=0), rolled(policy, part=1)
    assert first.fingerprint == rolled(policy).fingerprint
    starts = {tuple(run.observations[row].tolist()) for run in (first, second) for row in (0, 200, 400, 600)}
    assert len(starts) == 8


def test_an_episode_without_a_time_limit_takes_no_more_rows_than_are_asked_for() -> None:
    gym.register("tests/Endless-v0", Endless)
    told: list[int] = []
    dataset = collect(None, "tests/Endless-v0", transitions=2_500, parallel=8, progress=told.append)
    assert torch.bincount(dataset.episode).tolist() == [2_500]
    assert dataset.truncated.nonzero().flatten().tolist() == [2_499]
    assert told == [1_000, 2_000]
    # Noise is drawn in blocks: none comes twice.
    assert len({tuple(dataset.actions[row : row + 32].tolist()) for row in range(2_400)}) == 2_400
    assert Endless.steps <= 2_500


class Endless(gym.Env):
    """Nothing ever ends."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(3, start=-1)
    steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple:
        assert -1 <= action <= 1
        Endless.steps += 1
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_discrete_environments_are_explored_at_random() -> None:
    dataset = collect(None, "CartPole-v1", transitions=500, seed=0)
    assert dataset.discrete
    assert set(dataset.actions.tolist()) == {0, 1}
    assert bool(dataset.terminated.any())


def test_what_does_not_fit_is_refused(policy: Policy) -> None:
    with pytest.raises(DatasetError, match="takes 3 observations and gives 1 continuous actions; tests/Walk-v0 has"):
        collect(policy, "tests/Walk-v0", transitions=10)
    with pytest.raises(EvaluationError, match="no environment 'Nothing-v9'"):
        collect(policy, "Nothing-v9", transitions=10)
    with pytest.raises(DatasetError, match="gives 1 continuous actions; CartPole-v1 has"):
        collect(random_policy("ContinuousCartPole-v0", 4), "CartPole-v1", transitions=10)
    with pytest.raises(DatasetError, match="a deterministic policy has no distribution"):
        rolled(policy, stochastic=True)
    with pytest.raises(DatasetError, match="epsilon in"):
        rolled(policy, epsilon=1.5)


def test_the_bundled_data_are_what_the_recipe_gives() -> None:
    """Bit for bit on the processor that made them; the comparison leaves room for another one's last digits."""
    data, recipe = load_dataset("pendulum-td3", cache=False), load_recipe("pendulum-td3")
    assert (len(data), data.env_id) == (recipe.rows, recipe.env_id)
    behaviour = load_policy(bundled("models") / str(recipe.policy) / "policy.safetensors")
    again = collect(behaviour, recipe.env_id, transitions=recipe.rows, epsilon=recipe.epsilon, seed=recipe.seed)
    assert torch.equal(data.episode, again.episode)
    assert torch.equal(data.truncated, again.truncated)
    for name in ("observations", "actions", "rewards", "next_observations"):
        torch.testing.assert_close(getattr(data, name)[:3_000], getattr(again, name)[:3_000], rtol=1e-5, atol=1e-4)
    if rounding() == ROUNDING:
        assert data.fingerprint == again.fingerprint


def test_a_simulation_that_breaks_down_is_no_data() -> None:
    with pytest.raises(DatasetError, match=r"HalfCheetah-v5: the simulation broke down in \d+ of \d+ episodes"):
        collect(None, "HalfCheetah-v5", transitions=2_000, epsilon=1.0, seed=1, perturb=["timestep=10"])


ROUNDING = "fbbbc160b7fb2b92"
"""Of the processor on which the bundled data were made."""


def rounding() -> str:
    """Tells processors apart on which sines or matrix products come out differently in the last bit."""
    x = np.linspace(-8.0, 8.0, 4_001)
    product = torch.from_numpy(np.sin(x[:3_840]).reshape(64, 60)) @ torch.from_numpy(np.cos(x[:3_840]).reshape(60, 64))
    return hashlib.sha256(np.sin(x).tobytes() + np.cos(x).tobytes() + product.numpy().tobytes()).hexdigest()[:16]
