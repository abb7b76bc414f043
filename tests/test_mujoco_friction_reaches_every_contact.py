"""Friction of MuJoCo models, judged by the contacts that MuJoCo finds: geoms, listed pairs, cloth, overrides."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
from mujoco_models import CLOTH, FEET, HARD, PAIR, PAIRS, RICH, UNTYPED, feet, numbers, opened, scaled

from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.physics import perturb
from offline_robust.errors import EvaluationError


def sliding(model: Any) -> dict[str, np.ndarray]:
    """Both sliding frictions of every contact, by what touches, as MuJoCo uses them."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    names = ["-".join(sorted(model.geom(int(geom)).name for geom in pair)) for pair in data.contact.geom]
    return dict(zip(names, np.array(data.contact.friction[:, :2]), strict=True))


OVERRIDE = {"option": 'o_friction=".3 .4 .005 .0001 .0001"', "flag": '<flag override="enable"/>'}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairs": PAIR},
        {"pairs": PAIRS},
        {"pairs": PAIRS, "floor": f"{HARD} {UNTYPED}", "foot": UNTYPED},
        {"foot": 'priority="2"', "pairs": PAIR},
        OVERRIDE,
        {"pairs": PAIR, **OVERRIDE},
    ],
    ids=["types", "a pair", "all pairs", "pairs alone", "priority", "override", "override and pairs"],
)
def test_friction_scales_every_contact_wherever_it_takes_it_from(options: dict[str, str]) -> None:
    physics = feet(**options)
    before, nominal = numbers(physics.model), sliding(physics.model)
    assert set(nominal) == {"floor-left", "floor-right", "step-third"}
    for factor in (0.5, 2.0):
        now = sliding(scaled(physics, ("friction", factor)))
        for where, value in nominal.items():
            np.testing.assert_allclose(now[where], factor * value, rtol=1e-12)
    perturb(physics, [Perturbation("friction", 0.25, "absolute")])
    assert all((value == 0.25).all() for value in sliding(physics.model).values())
    physics.reset()
    assert numbers(physics.model) == before


def test_friction_reaches_cloth() -> None:
    physics = opened(CLOTH)
    for factor, friction in ((1.0, 1.4), (0.5, 0.7)):
        data = mujoco.MjData(scaled(physics, ("friction", factor)))
        mujoco.mj_forward(physics.model, data)
        assert data.ncon
        np.testing.assert_allclose(data.contact.friction[:, 0], friction)
    # The threads' own slides are no limbs.
    assert "damping" not in physics.parameters
    with pytest.raises(EvaluationError, match=r"^floor_friction cannot be perturbed in this model: a contact with"):
        physics.read("floor_friction")


def test_floor_friction_is_that_of_every_contact_with_the_floor_and_of_no_other() -> None:
    nominal = sliding(feet(pairs=PAIR, floor=RICH).model)
    now = sliding(scaled(feet(pairs=PAIR, floor=RICH), ("floor_friction", 0.5)))
    np.testing.assert_allclose(now["floor-left"], [0.35, 0.45])
    np.testing.assert_allclose(now["floor-right"], [0.4, 0.4])
    np.testing.assert_array_equal(now["step-third"], nominal["step-third"])
    alone = {"pairs": PAIRS, "floor": f"{HARD} {UNTYPED}", "foot": UNTYPED}
    now = sliding(scaled(feet(**alone), ("floor_friction", 2.0)))
    np.testing.assert_allclose(now["floor-left"], [1.4, 1.8])
    np.testing.assert_allclose(now["floor-right"], [1.3, 1.5])
    np.testing.assert_allclose(now["step-third"], [1.1, 1.3])


def test_a_wall_is_no_floor() -> None:
    wall = FEET.replace("<body", '<geom name="wall" type="plane" size="1 1 1" pos="-.09 0 0" zaxis="1 0 0"/><body', 1)
    physics = opened(wall.format(pairs="", floor=RICH, foot="", option="", flag=""))
    nominal, now = sliding(physics.model), sliding(scaled(physics, ("floor_friction", 0.5)))
    np.testing.assert_array_equal(now["left-wall"], nominal["left-wall"])
    np.testing.assert_allclose(now["floor-left"], [0.4, 0.4])


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({"pairs": PAIR}, "world_friction", r"do not look at the floor's own friction: perturb floor_friction"),
        ({"pairs": PAIR}, "floor_friction", r"take more than its friction from the floor alone"),
        ({"floor": RICH, "foot": 'priority="2"'}, "floor_friction", "priority, softness"),
        (OVERRIDE, "floor_friction", r"overrides the friction of all contacts \(o_friction\): perturb friction"),
        ({"flag": '<flag contact="disable"/>'}, "friction", "switches contacts off"),
        ({"flag": '<flag gravity="disable"/>'}, "gravity", "switches gravity off"),
    ],
)
def test_what_friction_cannot_reach_is_not_offered_and_the_error_says_why(
    options: dict[str, str], name: str, reason: str
) -> None:
    physics = feet(**options)
    assert name not in physics.parameters
    with pytest.raises(EvaluationError, match=f"{name} cannot be perturbed in this model: .*{reason}") as caught:
        physics.write(name, np.ones(1))
    assert "\n" not in str(caught.value)
