"""Where data, configuration and environment say different things, the chain stops and says both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from toys import SMALL

from offline_robust.collection import collect
from offline_robust.datasets import convert, describe, load_dataset, write_d4rl, write_npz
from offline_robust.environment import EnvironmentChoice, EnvironmentSpec, WrapperSpec, agree, from_gymnasium, make_spec
from offline_robust.errors import ConfigError, DatasetError, EvaluationError, UserError
from offline_robust.evaluation import EvaluationRequest, evaluate, score_reference
from offline_robust.experiments import load_config, load_run, train
from offline_robust.experiments.evaluating import check_score, compare_runs, environment_of_run, evaluate_run

LIGHT = make_spec("Pendulum-v1", {"g": 2.0}, step_limit=20)
SHORT = {"steps": 2, "log_every": 1, "batch_size": 8}


def values(dataset: object, **more: Any) -> dict[str, Any]:
    return {"dataset": str(dataset), "learner": {"name": "sac", **SMALL}, "training": SHORT, **more}


@pytest.fixture
def light(tmp_path: Path) -> Path:
    """Pendulum's data under weak gravity, 20 steps an episode."""
    return write_npz(collect(None, LIGHT, transitions=60), tmp_path / "light.npz")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("Hopper-v5", r"is Pendulum-v1 in .* and Hopper-v5 in the configuration"),
        ({"kwargs": {"g": 10.0}}, r"g is 2.0 in .* and 10.0 in the configuration"),
        ({"kwargs": {}}, r"g is 2.0 in .* and not given in the configuration"),
        ({"step_limit": 200}, r"step limit is 20 in .* and 200 in the configuration"),
        ({"wrappers": [{"name": "ClipAction"}]}, r"wrappers are none in .* and ClipAction\(\) in the configuration"),
        ({"ignore_wrappers": ["ClipAction"]}, r"no such wrapper; it has none"),
    ],
)
def test_training_refuses_before_it_starts_and_says_both(env: Any, said: str, light: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as refused:
        train(values(light, env=env), out=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_spaces_that_differ_are_told_before_training(tmp_path: Path) -> None:
    data = collect(None, "Pendulum-v1", transitions=30)
    other = {name: getattr(data, name) for name in ("observations", "actions", "rewards", "terminated", "truncated")}
    tight = load_dataset(other | {"action_space": gym.spaces.Box(-1.0, 1.0, (1,)), "env": "Pendulum-v1"})
    path = write_npz(tight, tmp_path / "tight.npz")
    with pytest.raises(ConfigError, match=r"the data have the actions Box\(-1.0, 1.0.* takes Box\(-2.0, 2.0"):
        train(values(path), out=tmp_path / "run")
    wide = load_dataset({**other, "observations": torch.zeros(30, 39)})
    path = write_npz(wide, tmp_path / "wide.npz")
    with pytest.raises(UserError, match="39"):
        train(values(path, env="Pendulum-v1"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_bundled_configuration_of_another_environment_is_refused(tmp_path: Path) -> None:
    data = write_npz(collect(None, "Hopper-v5", transitions=30), tmp_path / "hopper.npz")
    with pytest.raises(UserError, match=r"Hopper-v5 in .* and Pendulum-v1 in the configuration"):
        train("sac/pendulum", {"dataset": str(data)}, out=tmp_path / "run")


def test_the_environment_reaches_the_loader_in_training_as_in_info(tmp_path: Path) -> None:
    """D4RL's early layout: no timeouts, no spaces, five episodes that only the environment's limit shows."""
    data = collect(None, "Pendulum-v1", transitions=1_000)
    path = write_d4rl(data, tmp_path / "x.hdf5")
    import h5py

    with h5py.File(path, "a") as file:
        for key in ("timeouts", "next_observations", "offline_robust"):
            file.pop(key, None)
        file["actions"][:] = file["actions"][:] * 0.9
    told = describe(load_dataset(path, env="Pendulum-v1"))
    run = train(values(path, env="Pendulum-v1"), out=tmp_path / "run")
    assert (told["episodes"], told["action_space"]) == (5, "Box(-2.0, 2.0, (1,), float32)")
    assert run.meta["dataset"]["episodes"] == 5
    assert run.meta["dataset"]["fingerprint"] == told["fingerprint"]
    assert run.policy.spec.action_high == (2.0,)
    converted = load_dataset(convert(path, tmp_path / "y.npz", env="Pendulum-v1"))
    assert converted.fingerprint == told["fingerprint"]
    assert converted.env_id == "Pendulum-v1"


def test_a_switch_of_the_environment_that_fits_the_data_is_named(tmp_path: Path) -> None:
    """Ant logged without contact forces: 27 numbers where the registered one gives 105."""
    data = collect(None, make_spec("Ant-v5", {"include_cfrc_ext_in_observation": False}), transitions=30)
    columns = {name: getattr(data, name) for name in ("observations", "actions", "rewards", "terminated", "truncated")}
    with pytest.raises(DatasetError, match=r"--set env.kwargs.include_cfrc_ext_in_observation=false"):
        load_dataset(columns, env="Ant-v5")
    path = write_npz(load_dataset(columns | {"action_space": data.action_space}), tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"105: Ant-v5 with include_cfrc_ext_in_observation=False has 27"):
        train(values(path, env="Ant-v5"), out=tmp_path / "refused")
    run = train(values(path, env="Ant-v5"), {"env.kwargs.include_cfrc_ext_in_observation": False}, out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"env.kwargs.include_cfrc_ext_in_observation was False and is now True"):
        train(
            values(path, env="Ant-v5"),
            {"env.kwargs.include_cfrc_ext_in_observation": True},
            out=tmp_path / "run",
            resume=True,
        )
    with pytest.raises(ConfigError, match=r"cannot resume: env was .* and is now 'Ant-v5'"):
        train(values(path, env="Ant-v5"), out=tmp_path / "run", resume=True)
    assert evaluate(run.policy, episodes=1, max_steps=5).frame["length"].iloc[0] == 5


def test_an_action_that_was_never_logged_stays_an_action(tmp_path: Path) -> None:
    data = collect(None, "Acrobot-v1", transitions=60)
    columns = {
        "observations": data.observations,
        "actions": (data.actions > 0).long(),  # 0 and 1 of three actions
        "rewards": data.rewards,
        "terminals": data.terminated,
        "timeouts": data.truncated,
    }
    assert load_dataset(columns).action_dim == 2
    known = load_dataset(columns, env="Acrobot-v1")
    assert known.action_dim == 3
    path = write_npz(known, tmp_path / "x.npz")
    config = values(path) | {"learner": {"name": "fqi", "density_filter": False, **SMALL}}
    run = train(config, out=tmp_path / "run")
    assert evaluate(run.policy, run.environment, episodes=1).frame["length"].iloc[0] > 0


def test_a_run_and_its_policy_file_carry_it_whole(light: Path, tmp_path: Path) -> None:
    run = train(values(light), out=tmp_path / "run")
    opened = load_run(tmp_path / "run")
    assert opened.environment == LIGHT
    assert opened.policy.spec.environment == LIGHT
    own = evaluate(run.policy, LIGHT, episodes=3)
    assert own.frame["length"].unique().tolist() == [20]
    for results in (
        evaluate_run(opened, episodes=3),
        evaluate(opened.policy, episodes=3),
        evaluate(opened.policy, "Pendulum-v1", episodes=3),  # the id alone names the policy's environment
        evaluate_run(opened, episodes=3, env="Pendulum-v1"),
    ):
        assert results.frame["return"].tolist() == own.frame["return"].tolist()
        assert results.meta["environment"]["kwargs"] == {"g": 2.0}
    heavy = evaluate(opened.policy, "Pendulum-v1", env_kwargs={"g": 10.0}, episodes=3)
    assert heavy.frame["return"].tolist() != own.frame["return"].tolist()


def test_runs_of_different_environments_are_not_compared(light: Path, tmp_path: Path) -> None:
    plain = write_npz(collect(None, "Pendulum-v1", transitions=60), tmp_path / "plain.npz")
    runs = [train(values(path), out=tmp_path / Path(path).stem) for path in (light, plain)]
    with pytest.raises(EvaluationError, match=r"g is 2.0 in light and not given in plain"):
        compare_runs(runs, episodes=1)


def test_another_environment_that_the_user_names_is_taken_bare_with_a_warning(light: Path, tmp_path: Path) -> None:
    run = train(values(light), out=tmp_path / "run")
    gym.register("SecondPendulum-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=7)
    try:
        with pytest.warns(UserWarning, match=r"the data's own is Pendulum-v1 with g=2.0"):
            chosen = environment_of_run(run, EvaluationRequest(env="SecondPendulum-v0"))
        assert chosen == EnvironmentSpec("SecondPendulum-v0")
        with pytest.raises(EvaluationError, match="ClipAction: SecondPendulum-v0 has no such wrapper; it has none"):
            environment_of_run(run, EvaluationRequest(env="SecondPendulum-v0", ignore_wrappers=["ClipAction"]))
    finally:
        del gym.registry["SecondPendulum-v0"]


def test_a_score_is_of_the_environment_without_the_wrappers_that_are_ignored(tmp_path: Path) -> None:
    clipped = make_spec("Pendulum-v1", wrappers=[{"name": "ClipReward", "kwargs": {"min_reward": -1.0}}])
    run = train(values(write_npz(collect(None, clipped, transitions=60), tmp_path / "x.npz")), out=tmp_path / "run")
    with pytest.raises(EvaluationError, match="ClipReward"):
        check_score("ours", [run], EvaluationRequest())
    bare = EvaluationRequest(ignore_wrappers=["ClipReward"])
    assert check_score("ours", [run], bare) == score_reference("ours", "Pendulum-v1")


def test_configurations_say_the_environment_in_both_ways_and_old_ones_still_load() -> None:
    base = {"dataset": "x", "learner": {"name": "sac"}}
    old = load_config(base | {"env": "Pendulum-v1", "env_kwargs": {"g": 2.0}})
    new = load_config(base | {"env": {"id": "Pendulum-v1", "kwargs": {"g": 2.0}}})
    assert old == new
    assert load_config(base | {"env": "Pendulum-v1"}, {"env.kwargs.g": 2.0}) == new
    assert load_config(base | {"env": "Pendulum-v1", "env_kwargs": {}}).to_dict()["env"] == "Pendulum-v1"
    endless = load_config(base | {"env": {"kwargs": {"healthy_z_range": [0.5, float("inf")]}}})
    assert load_config(endless.to_dict()) == endless
    with pytest.raises(ConfigError, match="say different things"):
        load_config(base | {"env": {"id": "Pendulum-v1", "kwargs": {"g": 1.0}}, "env_kwargs": {"g": 2.0}})
    with pytest.raises(ConfigError, match="import code"):
        load_config(base | {"env": {"id": "os:Env-v0"}})


def test_old_run_folders_still_load(tmp_path: Path) -> None:
    """config.yaml with env and env_kwargs, meta.json and policy with an id alone."""
    data = write_npz(collect(None, LIGHT, transitions=60), tmp_path / "x.npz")
    run = train(values(data), out=tmp_path / "run")
    config = run.folder / "config.yaml"
    text = config.read_text()
    assert "env: null" in text
    config.write_text(text.replace("env: null", "env: Pendulum-v1\nenv_kwargs: {g: 2.0}"))
    meta = json.loads((run.folder / "meta.json").read_text())
    del meta["environment"]
    (run.folder / "meta.json").write_text(json.dumps(meta))
    opened = load_run(run.folder)
    assert opened.environment == make_spec("Pendulum-v1", {"g": 2.0})
    results = evaluate_run(opened, episodes=1)
    assert results.meta["environment"]["kwargs"] == {"g": 2.0}


def test_a_choice_says_some_and_leaves_the_rest_to_the_data(light: Path) -> None:
    said = EnvironmentChoice("Pendulum-v1", {"g": 2})
    assert load_dataset(light, env=said).environment == LIGHT
    assert load_dataset(light, env=EnvironmentChoice(step_limit=20)).environment == LIGHT
    with pytest.raises(DatasetError, match="name no environment: say its id"):
        load_dataset({"observations": [[0.0]], "actions": [[0.0]], "rewards": [0.0], "terminals": [1]},
                     env=EnvironmentChoice(kwargs={"g": 1}))  # fmt: skip


def test_disagreement_is_symmetric_and_silent_where_nothing_is_said() -> None:
    wrapped = make_spec("Pendulum-v1", wrappers=[WrapperSpec("RescaleAction", {"min_action": -1, "max_action": 1})])
    assert agree(make_spec("Pendulum-v1", step_limit=200), make_spec("Pendulum-v1")) == ""  # as it is registered
    for one, other in ((LIGHT, wrapped), (wrapped, LIGHT), (LIGHT, make_spec("Hopper-v5"))):
        assert agree(one, other)
        assert bool(agree(one, other)) == bool(agree(other, one))


def test_wrappers_are_the_same_wherever_in_gymnasium_their_classes_lie() -> None:
    """Gymnasium records modules such as gymnasium.wrappers.transform_action, which nobody writes in a configuration."""
    inner = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), -1.0, 1.0)
    env = gym.wrappers.FrameStackObservation(inner, 2)
    assert env.spec is not None
    recorded = from_gymnasium(env.spec.to_json(), "the data")
    assert recorded is not None
    kept = EnvironmentSpec.from_dict(recorded.to_dict(), "a run")
    said = [{"name": wrapper.name, "kwargs": dict(wrapper.kwargs)} for wrapper in recorded.wrappers]
    assert EnvironmentChoice("Pendulum-v1", wrappers=said).on(recorded) == recorded == kept
    assert agree(recorded, kept) == ""
    said[0]["kwargs"]["max_action"] = 2.0
    with pytest.raises(EvaluationError, match=r"max_action=1.0.* in the data and .*max_action=2.0.* in env"):
        EnvironmentChoice("Pendulum-v1", wrappers=said).on(recorded)
