"""Collected data depend on the seed alone: not on how many environments run at once, not on global state."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from offline_robust.datasets import TransitionDataset, collect, collect_recipe, load_dataset, load_recipe
from offline_robust.errors import ConfigError, DatasetError, DatasetNotFound
from offline_robust.networks import Policy, policy_spec
from offline_robust.networks.policies import build_actor


def random_policy(env_id: str, width: int) -> Policy:
    env = gym.make(env_id)
    spec = policy_spec("deterministic", width, env.action_space, (32, 32), env_id)
    env.close()
    return Policy(spec, build_actor(spec, torch.Generator().manual_seed(1)))


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


def test_discrete_environments_are_explored_at_random() -> None:
    dataset = collect(None, "CartPole-v1", transitions=500, seed=0)
    assert dataset.discrete
    assert set(dataset.actions.tolist()) == {0, 1}
    assert bool(dataset.terminated.any())


def test_what_does_not_fit_is_refused(policy: Policy) -> None:
    with pytest.raises(DatasetError, match="the policy takes 3 observations and gives 1 actions; tests/Walk-v0 has"):
        collect(policy, "tests/Walk-v0", transitions=10)
    with pytest.raises(DatasetError, match="cannot be made"):
        collect(policy, "Nothing-v9", transitions=10)
    with pytest.raises(DatasetError, match="epsilon in"):
        rolled(policy, epsilon=1.5)


def test_the_bundled_data_are_what_the_recipe_gives() -> None:
    """Bit for bit on the processor that made them; the comparison leaves room for another one's last digits."""
    bundled, recipe = load_dataset("pendulum-td3", cache=False), load_recipe("pendulum-td3")
    assert (len(bundled), bundled.env_id) == (recipe.transitions, recipe.env_id)
    from offline_robust.files import bundled as folder
    from offline_robust.networks import load_policy

    behaviour = load_policy(folder("models") / str(recipe.policy) / "policy.safetensors")
    again = collect(behaviour, recipe.env_id, transitions=3_000, epsilon=recipe.epsilon, seed=recipe.seed)
    for name in ("observations", "actions", "rewards", "next_observations"):
        torch.testing.assert_close(getattr(bundled, name)[:3_000], getattr(again, name), rtol=1e-5, atol=1e-4)


RECIPE = {"name": "tiny", "env_id": "Pendulum-v1", "epsilon": 1.0, "transitions": 30, "seed": 0, "description": "x"}


def recipe_file(path: Path, **changes: object) -> Path:
    content = {key: value for key, value in (RECIPE | changes).items() if value is not None}
    path.write_text("".join(f"{key}: {value}\n" for key, value in content.items()))
    return path


def test_a_recipe_writes_a_dataset_that_loads(tmp_path: Path) -> None:
    made = collect_recipe(recipe_file(tmp_path / "r.yaml"), tmp_path / "out")
    loaded = load_dataset(tmp_path / "out", cache=False)
    assert loaded.fingerprint == made.fingerprint
    assert loaded.provenance["dataset_id"] == "offline-robust/tiny-v0"
    with pytest.raises(DatasetError, match="exists already"):
        collect_recipe(tmp_path / "r.yaml", tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epsilonn": 1.0}, "unknown key 'epsilonn'; did you mean 'epsilon'"),
        ({"epsilon": 2.0}, "epsilon: Input should be less than or equal to 1"),
        ({"transitions": "many"}, "transitions"),
        ({"seed": None}, "seed: Field required"),
        ({"name": "../x"}, "name"),
        ({"env_id": "!!python/object/apply:os.system ['true']"}, "is not YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file(tmp_path / "r.yaml", **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(DatasetNotFound, match="did you mean 'pendulum-td3'"):
        load_recipe("pendulum-td4")
