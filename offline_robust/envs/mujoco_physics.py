"""The physics of any Gymnasium MuJoCo environment, to be read and perturbed on a copy of its model."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from offline_robust.envs.mujoco_actuators import keep_muscles, strengths
from offline_robust.envs.mujoco_fields import Simulation
from offline_robust.envs.mujoco_lengths import LinkLengths, Model
from offline_robust.envs.mujoco_parameters import discover
from offline_robust.envs.perturbations import FloatArray, ParameterSpec
from offline_robust.errors import EvaluationError, nearest

_KEPT_BUILDS = 16

_FEED_CONSTANTS = frozenset(
    {
        "body_mass", "body_inertia", "dof_armature", "tendon_armature", "actuator_armature", "qpos_spring",
        "actuator_gear",
    }
)  # fmt: skip
"""The fields written here from which `mujoco.mj_setConst` derives others (inverse weights at the start state)."""

_COMPILED_LAWS = ("actuator_gainprm", "actuator_biasprm", "jnt_stiffness", "dof_damping")
"""What the compiler may derive from a robot's inertia (a servo's damping ratio, a joint's spring and damper): with
longer links they stay what they are, as masses change without them too."""


class MuJoCoPhysics:
    """Reads and perturbs a copy of a MuJoCo environment's model; see `Physics`.

    Parameters are found in the compiled model: gravity, wind, density, viscosity, time step; masses (``mass``,
    ``torso_mass``); friction; damping, stiffness, springref, armature and frictionloss of the limb joints (``damping``,
    ``thigh_damping``); ``gear`` and ``ctrlrange`` of the motors (``thigh_gear``); steady pushes (``torso_push_x``);
    and link lengths (``leg_length``), for which the model is built again, see `LinkLengths`. A parameter that would
    reach only part of what its name says in this model is withheld.

    Writing a length starts from a new model: what was written before is lost, so lengths go first. Many perturbed
    models are made by `reset`, writes, `commit` and ``copy.copy(physics.model)``.

    Args:
        env: a made environment whose unwrapped class is Gymnasium's MujocoEnv or looks like it (``model``, ``fullpath``
            and ``init_qpos``). It is not changed.

    Attributes:
        parameters: what can be read and written, by name.
        withheld: why a parameter that other models have is not among them.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        inner: Any = env.unwrapped
        self._start: FloatArray = np.array(getattr(inner, "init_qpos", inner.model.qpos0), np.float64)
        self._nominal = _simulation(inner.model)
        self._links = LinkLengths(str(getattr(inner, "fullpath", "")), self._nominal.base, self._start)
        self._lengths = self._links.nominal.copy()
        self._builds: OrderedDict[bytes, Simulation] = OrderedDict()
        self._simulation = self._nominal
        self._stale = False
        self._plain, withheld = discover(self._nominal.base)
        own = {name: parameter.spec for name, parameter in self._plain.items()}
        self.parameters: Mapping[str, ParameterSpec] = {**self._length_specs(), **own}
        self.withheld: Mapping[str, str] = {**self._links.withheld, **withheld}

    @property
    def model(self) -> Model:
        """The perturbed `mujoco.MjModel`.

        The object stays the same until a length is written or reset; then it is another one, of the same sizes.
        """
        return self._simulation.model

    @property
    def pushes(self) -> FloatArray:
        """Steady forces (nbody, 3) in N, in the world's frame, for the first columns of ``MjData.xfrc_applied``.

        The model has no place for them: whoever steps it copies them there after each `mj_resetData`.
        """
        return self._simulation.pushes

    @property
    def qpos0(self) -> FloatArray:
        """Where episodes begin before reset noise (nq,): the environment's own start, lifted with the robot."""
        nominal, model = self._nominal.base.qpos0, self.model.qpos0
        return np.asarray(np.where(self._start == nominal, model, self._start + (model - nominal)), np.float64)

    def read(self, name: str) -> FloatArray:
        """The current values (k,) of a parameter.

        Raises:
            EvaluationError: there is no such parameter.
        """
        if self._known(name).structural:
            return np.array(self._lengths[self._links.names[name]])
        return self._plain[name].read(self._simulation)

    def write(self, name: str, values: FloatArray) -> None:
        """Sets the values (k,) that `read` gives; writing the current ones changes nothing.

        Raises:
            EvaluationError: there is no such parameter, the shape or a value is impossible.
        """
        spec, before = self._known(name), self.read(name)
        values = np.asarray(values, np.float64)
        if values.shape != before.shape:
            raise EvaluationError(f"{name} takes values of shape {before.shape}, not {values.shape}")
        spec.check(values)
        if np.array_equal(values, before):
            return
        if spec.structural:
            lengths = self._lengths.copy()
            lengths[self._links.names[name]] = values
            self._use(lengths)
            return
        parameter = self._plain[name]
        self._simulation.written.update(parameter.fields)
        parameter.write(self._simulation, values)
        self._stale = self._stale or not _FEED_CONSTANTS.isdisjoint(parameter.fields)

    def commit(self) -> None:
        """Brings the constants that MuJoCo derives from masses, armatures and gears up to date."""
        if self._stale:
            now = self._simulation
            now.scratch = now.scratch or mujoco.MjData(now.model)
            laws = now.model.actuator_biasprm.copy()
            mujoco.mj_setConst(now.model, now.scratch)
            # A servo of negative strength looks like one with a damping ratio, which MuJoCo would work out anew.
            now.model.actuator_biasprm[:] = laws
            now.written.update(_derived_fields())
            self._stale = False
        if "actuator_acc0" in self._simulation.written:
            keep_muscles(self._simulation.base, self._simulation.model)
            self._simulation.written.update(("actuator_gainprm", "actuator_biasprm"))

    def reset(self) -> None:
        """Back to the environment's own model, bit for bit, without pushes."""
        self._use(self._links.nominal.copy())

    def fork(self) -> MuJoCoPhysics:
        """The same physics, nominal, on another copy of the model: for an episode whose physics keep moving."""
        other = copy.copy(self)
        other._nominal = other._simulation = _simulation(self._nominal.base)
        other._lengths, other._builds, other._stale = self._links.nominal.copy(), OrderedDict(), False
        return other

    def _use(self, lengths: FloatArray) -> None:
        """Continues with the clean model of the given lengths, building it if it is not at hand."""
        simulation = self._nominal
        if not np.array_equal(lengths, self._links.nominal):
            key = lengths.tobytes()
            if key not in self._builds:
                self._builds[key] = _simulation(self._build(lengths))
                if len(self._builds) > _KEPT_BUILDS:
                    self._builds.popitem(last=False)
            self._builds.move_to_end(key)
            simulation = self._builds[key]
        _clean(simulation)
        self._simulation, self._lengths, self._stale = simulation, lengths, False

    def _build(self, lengths: FloatArray) -> Model:
        model, nominal = self._links.build(lengths), self._nominal.base
        for path in _COMPILED_LAWS:
            getattr(model, path)[:] = getattr(nominal, path)
        keep_muscles(nominal, model)
        return model

    def _known(self, name: str) -> ParameterSpec:
        if name in self.withheld and name not in self.parameters:
            raise EvaluationError(f"{name} cannot be perturbed in this model: {self.withheld[name]}")
        if name not in self.parameters:
            raise EvaluationError(f"no parameter {name!r} to perturb{nearest(name, self.parameters)}")
        return self.parameters[name]

    def _length_specs(self) -> dict[str, ParameterSpec]:
        specs = {}
        for name, members in self._links.names.items():
            what = name.removesuffix("_length").replace("_", " ")
            many = f" ({len(members)} links, scaled alike)" if len(members) > 1 else ""
            mass = "the total mass stays" if self._links.keeps_mass else "mass follows"
            meaning = (
                f"length of the {what}{many}, without rounded ends; {mass}; the robot starts with its feet as high"
            )
            specs[name] = ParameterSpec(name, "m", 0.0, 100.0, "scale", meaning, low_open=True, structural=True)
        return specs


def mujoco_physics(env: gym.Env[Any, Any], env_id: str) -> MuJoCoPhysics | None:
    """The physics of an environment that keeps a `mujoco.MjModel`; None for others. ``env_id`` plays no part."""
    return MuJoCoPhysics(env) if isinstance(getattr(env.unwrapped, "model", None), mujoco.MjModel) else None


def _simulation(model: Model) -> Simulation:
    return Simulation(copy.copy(model), copy.copy(model), np.zeros((model.nbody, 3)), strengths(model))


def _clean(simulation: Simulation) -> None:
    """Undoes every write, in place."""
    for path in simulation.written:
        value = attrgetter(path)(simulation.base)
        holder, _, leaf = path.rpartition(".")
        target = attrgetter(holder)(simulation.model) if holder else simulation.model
        if isinstance(value, np.ndarray):
            getattr(target, leaf)[...] = value
        else:
            setattr(target, leaf, value)
    simulation.written.clear()
    simulation.pushes[:], simulation.strengths[:] = 0.0, strengths(simulation.base)


@lru_cache(maxsize=1)
def _derived_fields() -> tuple[str, ...]:
    """The arrays in a model that `mujoco.mj_setConst` may derive anew: subtree masses, and what holds at the start."""
    empty = mujoco.MjModel.from_xml_string("<mujoco/>")
    others = ("body_subtreemass", "eq_data", "tendon_lengthspring", "actuator_lengthrange")
    names = [name for name in dir(empty) if name in others or (name.endswith("0") and not name.startswith("_"))]
    return tuple(name for name in names if isinstance(getattr(empty, name), np.ndarray))
