"""Classic control: every parameter moves the system the way its name says."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from offline_robust.environment import make_env
from offline_robust.envs import GymnasiumBatch, Perturbation, make_batch, open_physics, perturb, system
from offline_robust.envs.classic import CARTPOLES

pytestmark = pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")

CHANGES = {
    "CartPole-v1": {"gravity", "force_mag", "length", "pole_mass", "cart_mass", "mass", "dt", "start_angle"},
    "Acrobot-v1": {"length_1", "length_2", "mass_1", "mass_2", "moment", "dt", "torque_noise"},
    "MountainCar-v0": {"force", "gravity"},
    "MountainCarContinuous-v0": {"power"},
}
CHANGES |= dict.fromkeys(CARTPOLES, CHANGES["CartPole-v1"])


def _state(env_id: str, stated: Perturbation | None, state: list[float], action: Any, steps: int = 1) -> Any:
    """The state after so many steps of one action from a given state."""
    env = make_env(env_id)
    if stated is not None:
        perturb(open_physics(env, env_id), [system(env_id).ready(stated)])
    env.reset(seed=0)
    inner: Any = env.unwrapped
    inner.state = np.array(state)
    for _ in range(steps):
        env.step(action)
    return np.array(inner.state, np.float64)


@pytest.mark.parametrize("env_id", CHANGES)
def test_every_parameter_changes_the_motion_and_reset_undoes_it_bit_for_bit(env_id: str) -> None:
    of = system(env_id)
    physical = {name for name, spec in of.parameters.items() if spec.target == "physics"}
    assert physical == CHANGES[env_id]
    level = {"start_angle": 0.2, "torque_noise": 0.5}
    stated = [[of.ready(Perturbation(name, level.get(name, 1.3)))] for name in sorted(physical)]
    batch = GymnasiumBatch(of, [*stated, ()])
    of.action_space.seed(1)
    actions = [of.action_space.sample() for _ in range(8)]

    def path() -> Any:
        seen = [batch.reset([4] * (len(stated) + 1))]
        for action in actions:
            seen.append(batch.step(np.array([action] * (len(stated) + 1)))[0])
        return np.array(seen)

    perturbed = path()
    assert (perturbed[:, :-1] != perturbed[:, -1:]).any((0, 2)).all()
    for physics in batch._physics:
        physics.reset()
    plain = path()
    np.testing.assert_array_equal(plain, np.broadcast_to(perturbed[:, -1:], plain.shape))


@pytest.mark.parametrize("env_id", CARTPOLES)
def test_cart_and_pole(env_id: str) -> None:
    push: Any = np.ones(1, np.float32) if env_id.startswith("Continuous") else 1
    leaning, upright = [0.0, 0.0, 0.1, 0.0], [0.0] * 4

    def after(name: str | None, level: float = 1.0, state: list[float] = leaning) -> Any:
        return _state(env_id, Perturbation(name, level) if name else None, state, push)

    nominal, still = after(None), after(None, state=upright)
    idle = _state(env_id, Perturbation("force_mag", 0.0), leaning, push)
    # Angular velocity of the pole: to the right is positive, a push to the right turns it left.
    assert after("gravity", 2.0)[3] > nominal[3] > after("gravity", -1.0)[3]
    assert idle[3] > 0.0  # nobody pushes, it falls to where it leans
    assert _state(env_id, Perturbation("gravity", -1.0), leaning, push)[3] < nominal[3]
    assert abs(after("force_mag", 2.0, upright)[1]) == pytest.approx(2 * abs(still[1]))
    assert abs(after("length", 3.0, upright)[3]) < 0.5 * abs(still[3])
    assert abs(after("cart_mass", 2.0, upright)[1]) < 0.6 * abs(still[1])
    assert abs(after("mass", 2.0, upright)[1]) == pytest.approx(0.5 * abs(still[1]))
    # A heavier pole takes more of the push; a stale total mass would not know.
    assert abs(after("pole_mass", 5.0, upright)[1]) < abs(still[1])
    assert abs(after("dt", 0.5, upright)[3]) == pytest.approx(0.5 * abs(still[3]))


@pytest.mark.parametrize("env_id", CARTPOLES)
def test_what_is_derived_from_masses_and_length_follows_them(env_id: str) -> None:
    env = make_env(env_id)
    physics, inner = open_physics(env, env_id), env.unwrapped
    of = system(env_id)
    perturb(physics, [of.ready(Perturbation("mass", 2.0)), of.ready(Perturbation("length", 3.0))])
    assert (inner.masscart, inner.masspole) == (2.0, 0.2)  # type: ignore[attr-defined]
    if env_id != "ContinuousCartPole-v0":
        assert inner.total_mass == pytest.approx(2.2)  # type: ignore[attr-defined]
        assert inner.polemass_length == pytest.approx(0.2 * 1.5)  # type: ignore[attr-defined]
    physics.reset()
    plain: Any = make_env(env_id).unwrapped
    for name in ("masscart", "masspole", "length", "total_mass", "polemass_length"):
        assert getattr(inner, name, None) == getattr(plain, name, None)


@pytest.mark.parametrize("env_id", CARTPOLES)
def test_a_wider_start_moves_the_angle_alone_and_keeps_the_draw(env_id: str) -> None:
    of, seeds = system(env_id), list(range(300))
    batch = make_batch(of, [[Perturbation("start_angle", 0.2, "absolute")]] * 300)
    plain = make_batch(of, [()] * 300).reset(seeds)
    wide = batch.reset(seeds)
    np.testing.assert_allclose(wide[:, 2], 4.0 * plain[:, 2], rtol=1e-6)
    np.testing.assert_array_equal(wide[:, [0, 1, 3]], plain[:, [0, 1, 3]])
    assert 0.19 < np.abs(wide[:, 2]).max() <= 0.2
    np.testing.assert_array_equal(plain[0], gym.make("CartPole-v1").reset(seed=0)[0])


def test_acrobot() -> None:
    hanging = [0.5, 0.0, 0.0, 0.0]

    def after(name: str | None, level: float = 1.0, state: list[float] = hanging, action: int = 1) -> Any:
        return _state("Acrobot-v1", Perturbation(name, level) if name else None, state, action)

    nominal = after(None)
    assert nominal[2] < 0.0  # it swings back down
    # Torque meets the inertia: heavier, longer or bulkier links turn less, each seen from outside.
    rest = [0.0] * 4
    turned = after(None, state=rest, action=2)
    for name in ("mass_1", "length_1", "moment"):
        assert abs(after(name, 1.5, rest, 2)[2]) < abs(turned[2]), name
    for name in ("mass_2", "length_2", "moment"):
        assert abs(after(name, 1.5, rest, 2)[2:].sum()) < abs(turned[2:].sum()), name
    assert abs(after("dt", 0.5)[2]) < abs(nominal[2])
    assert (after("torque_noise", 1.0, rest) != after(None, state=rest)).any()
    env = make_env("Acrobot-v1")
    inner: Any = env.unwrapped
    perturb(open_physics(env, "Acrobot-v1"), [Perturbation("length_1", 1.2, "scale")])
    assert (inner.LINK_LENGTH_1, inner.LINK_COM_POS_1, inner.LINK_COM_POS_2) == (1.2, 0.6, 0.5)
    # The class, and so every other Acrobot, is as it was.
    assert (type(inner).LINK_LENGTH_1, type(inner).LINK_COM_POS_1) == (1.0, 0.5)


def test_mountain_cars() -> None:
    level_ground = [-np.pi / 6, 0.0]
    discrete, continuous = "MountainCar-v0", "MountainCarContinuous-v0"
    assert _state(discrete, Perturbation("force", 2.0), level_ground, 2)[1] == pytest.approx(
        2 * _state(discrete, None, level_ground, 2)[1]
    )
    slope = [0.0, 0.0]
    assert _state(discrete, Perturbation("gravity", 2.0), slope, 1)[1] == pytest.approx(
        2 * _state(discrete, None, slope, 1)[1]
    )
    full = np.ones(1, np.float32)
    assert _state(continuous, Perturbation("power", 2.0), level_ground, full)[1] == pytest.approx(
        2 * _state(continuous, None, level_ground, full)[1], rel=1e-5
    )


def test_a_pole_is_lifted_by_negative_gravity() -> None:
    """RFQI tests gravity down to 9.8 (1 - 3)."""
    batch = make_batch(system("CartPole-v1"), [[Perturbation("gravity", g, "scale")] for g in (-2.0, 1.0)])
    batch.reset([0, 0])
    rng, lengths = np.random.default_rng(0), np.zeros(2)
    while batch.live.any():
        lengths += batch.live
        batch.step(np.repeat(rng.integers(0, 2), 2))
    assert lengths[0] > lengths[1]
