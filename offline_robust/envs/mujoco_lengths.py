"""Link lengths of a MuJoCo robot: the model is built again from its XML with some links stretched.

A link is a body whose longest capsule or cylinder is longer than it is thick. It is stretched along that geom, away
from the point nearest to the joint it hangs by, which stays where it is. Whatever else belongs to the body (other
geoms, sites, the bodies that hang from it) keeps its distance from the point of the link it is nearest to, so that a
foot stays at the end of its leg, and nothing but the link changes shape. Radii stay. Mass and inertia follow from the
density, except where the XML states the total mass (HalfCheetah, 14 kg): there the longer link takes mass from the
others and the robot does not become heavier.

A robot that can rise is lifted, or lowered, so that its lowest geom starts as far above the ground as before. The
start ``qpos0`` shifts with it and heights in observations stay heights above the ground: Hopper and Walker2d on longer
legs report a larger height, and the ranges in which they count as healthy are not stretched. Ant starts in the air
with its legs level, so that its lowest geom is the torso and it is not lifted.
"""

from __future__ import annotations

from typing import Any, cast

import mujoco
import numpy as np
from numpy.typing import NDArray

from offline_robust.environment.quiet import quiet_compiler
from offline_robust.envs.perturbations import FloatArray
from offline_robust.errors import EvaluationError

Model = Any
"""A `mujoco.MjModel`."""

_ROUND = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))
_ANT_LEGS = ("front_left_leg", "front_right_leg", "back_leg", "right_back_leg")
_REACHER_LINKS = {"body0": "link0", "body1": "link1"}
_HOLDS = (int(mujoco.mjtEq.mjEQ_CONNECT), int(mujoco.mjtEq.mjEQ_WELD))
_DRIVES = ("JOINT", "JOINTINPARENT", "TENDON")
_ROUNDING = 1e-12  # metres; a robot is not lifted for less


class LinkLengths:
    """The links of one model and how to build it with other lengths.

    Args:
        path: the XML that the model was compiled from.
        model: the nominal model.
        start: the state (nq,) in which episodes begin, before reset noise; the robot is lifted for it.

    Attributes:
        nominal: the length of every link (k,), in metres, without rounded ends.
        names: for each parameter the places (n,) of its links in ``nominal``.
        withheld: for links that cannot be stretched faithfully the reason, by the name of the parameter.
        keeps_mass: whether the XML fixes the total mass.

    The file must compile to exactly this model. Otherwise (it has gone, or the environment edited its model) the
    lengths of another robot would be tested, so ``nominal`` and ``names`` are empty.
    """

    def __init__(self, path: str, model: Model, start: FloatArray) -> None:
        self._model, self._start = model, start
        self._spec = _load(path, model)
        self._bodies, self.withheld = _links(model, self._spec)
        self._geoms = [_main_geom(model, body) for body in self._bodies]
        # To the nanometre: files hold halves like 0.22500000000000003, and 0.45 typed by a person shall be nominal.
        self.nominal: FloatArray = np.array([round(2 * model.geom_size[geom, 1], 9) for geom in self._geoms])
        self.names = _names(model, self._bodies)
        self.keeps_mass = self._spec is not None and getattr(self._spec.compiler, "settotalmass", -1) > 0

    def build(self, lengths: FloatArray) -> Model:
        """A new model whose links have these lengths (k,), in metres.

        Raises:
            EvaluationError: MuJoCo refuses the geometry.
        """
        spec = cast(Any, self._spec).copy()
        factors = lengths / self.nominal
        for body, geom, factor in zip(self._bodies, self._geoms, factors, strict=True):
            if factor != 1.0:
                _stretch(spec.bodies[body], self._model, body, geom, float(factor))
        try:
            model = compile_quietly(spec)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise EvaluationError(f"link lengths {np.round(lengths, 6).tolist()} m cannot be built: {reason}") from None
        moved = np.flatnonzero(factors != 1.0)
        for root in {_root(self._model, self._bodies[link]) for link in moved}:
            height = self._lowest(self._model, root) - self._lowest(model, root)
            kept = [self._lowest(self._model, root, k) - self._lowest(model, root, k) for k in range(model.nkey)]
            if abs(height) > _ROUNDING:
                _lift(model, root, height)
            for key, own in enumerate(kept):
                if abs(own) > _ROUNDING:
                    _raise(model, root, model.key_qpos[key], own)
        return model

    def _lowest(self, model: Model, root: int, key: int | None = None) -> float:
        """The lowest height (m) that the colliding geoms of one robot reach in the start state, or in a keyframe."""
        data = mujoco.MjData(model)
        data.qpos[:] = self._start if key is None else self._model.key_qpos[key]
        mujoco.mj_kinematics(model, data)
        own = model.body_rootid[model.geom_bodyid] == root
        solid = np.flatnonzero(own & ((model.geom_contype != 0) | (model.geom_conaffinity != 0)))
        return min((_bottom(model, data, int(geom)) for geom in solid), default=0.0)


def compile_quietly(spec: Any) -> Model:
    """Compiles a `mujoco.MjSpec` under `quiet_compiler`; ValueError where the model is impossible."""
    with quiet_compiler():
        return spec.compile()


def same_numbers(one: Model, other: Model) -> bool:
    """Whether two models agree in every array and physics option, bit for bit (settings of the renderer aside)."""
    pairs = [(one, other), (one.opt, other.opt), (one.stat, other.stat)]
    for left, right in pairs:
        for name in (name for name in dir(left) if not name.startswith("_")):
            value = getattr(left, name)
            is_number = isinstance(value, np.ndarray | int | float)
            if is_number and np.asarray(value).tobytes() != np.asarray(getattr(right, name)).tobytes():
                return False
    return True


def _load(path: str, model: Model) -> Any | None:
    """The specification in a file; None unless it compiles to exactly this model."""
    try:
        with quiet_compiler():
            spec = mujoco.MjSpec.from_file(path)
            same = same_numbers(model, spec.compile())
    except (ValueError, OSError):
        return None
    # Positions inside a <frame> are relative to it; no Gymnasium robot has one.
    return spec if same and not spec.frames else None


def _links(model: Model, spec: Any | None) -> tuple[list[int], dict[str, str]]:
    """The bodies that can be stretched, and why others that look like it cannot."""
    by_geometry = spec and spec.compiler.inertiafromgeom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
    closed = _closed_trees(model)
    links, withheld = [], {}
    for body in range(1, model.nbody):
        if model.body_weldid[body] == 0 or _main_geom(model, body) < 0:  # it cannot move, or has no length
            continue
        if spec is None:
            reason = "its XML file is gone, has other contents than the model, or places bodies in a <frame>"
        elif not by_geometry and spec.bodies[body].explicitinertial:
            reason = "the XML states the body's inertia apart from its shape, so that it would not follow"
        elif _root(model, body) in closed:
            reason = "a connect or weld constraint holds this robot elsewhere, and would not move along"
        else:
            links.append(body)
            continue
        withheld[f"{model.body(body).name}_length"] = reason
    return links, withheld


def _closed_trees(model: Model) -> set[int]:
    """The root bodies of robots that are held by more than their joints: loops, and hands that follow a target."""
    held: set[int] = set()
    for constraint in range(model.neq):
        if model.eq_type[constraint] in _HOLDS:
            ends = np.array([model.eq_obj1id[constraint], model.eq_obj2id[constraint]])
            at_sites = model.eq_objtype[constraint] == int(mujoco.mjtObj.mjOBJ_SITE)
            held |= {_root(model, int(body)) for body in (model.site_bodyid[ends] if at_sites else ends)}
    return held - {0}


def _main_geom(model: Model, body: int) -> int:
    """The longest capsule or cylinder of a body that is longer than thick, or -1."""
    first, count = int(model.body_geomadr[body]), int(model.body_geomnum[body])
    long = [
        geom
        for geom in range(first, first + count)
        if model.geom_type[geom] in _ROUND and model.geom_size[geom, 1] > model.geom_size[geom, 0]
    ]
    return max(long, key=lambda geom: float(model.geom_size[geom, 1]), default=-1)


def _names(model: Model, bodies: list[int]) -> dict[str, NDArray[np.int64]]:
    """The parameters: each link by its body's name, then the groups that people speak of."""
    place = {body: link for link, body in enumerate(bodies)}
    links = {model.body(body).name: [link] for body, link in place.items() if model.body(body).name}
    if set(links) == set(_REACHER_LINKS):
        links = {_REACHER_LINKS[name]: members for name, members in links.items()}
    for left in [name for name in links if name.endswith("_left") and name[: -len("_left")] in links]:
        both = left[: -len("_left")]
        links[f"right_{both}"], links[f"left_{both}"] = links[both], links.pop(left)
        links[both] = links[f"right_{both}"] + links[f"left_{both}"]
    if {"pole", "pole2"} <= set(links):
        links["pole"] = links["pole"] + links["pole2"]
    limbs = [
        link
        for body, link in place.items()
        if floats(model, int(model.body_rootid[body])) and not _is_root(model, body)
    ]
    if set(_ANT_LEGS) <= set(links):
        # One leg is three links in a row, the last of them unnamed.
        links = {name: [place[b] for b in place if _hangs_from(model, b, model.body(name).id)] for name in _ANT_LEGS}
        links["leg"] = limbs
    if limbs:
        links["limb"] = limbs
    return {f"{name}_length": np.array(members, np.int64) for name, members in links.items()}


def floats(model: Model, body: int) -> bool:
    """Whether a body hangs from the world by a free joint, or by several, slides among them, as a robot's torso does.

    Joints that a motor drives are an arm's shoulder or a table's axes, not the way a robot moves in the world.
    """
    own = int(model.body_jntadr[body]) + np.arange(int(model.body_jntnum[body]))
    kinds = set(model.jnt_type[own].tolist())
    if not _is_root(model, body) or int(mujoco.mjtJoint.mjJNT_FREE) in kinds:
        return _is_root(model, body) and bool(kinds)
    return len(own) >= 2 and int(mujoco.mjtJoint.mjJNT_SLIDE) in kinds and not _driven(model) & set(own.tolist())


def _driven(model: Model) -> set[int]:
    """The joints (ids) that an actuator drives, itself or through a tendon that is wound on them."""
    at = {kind: model.actuator_trntype == int(getattr(mujoco.mjtTrn, f"mjTRN_{kind}")) for kind in _DRIVES}
    found = set(model.actuator_trnid[at["JOINT"] | at["JOINTINPARENT"], 0].tolist())
    for tendon in model.actuator_trnid[at["TENDON"], 0].tolist():
        path = slice(int(model.tendon_adr[tendon]), int(model.tendon_adr[tendon] + model.tendon_num[tendon]))
        wound = model.wrap_type[path] == int(mujoco.mjtWrap.mjWRAP_JOINT)
        found |= set(model.wrap_objid[path][wound].tolist())
    return found


def _is_root(model: Model, body: int) -> bool:
    return bool(model.body_parentid[body] == 0)


def _root(model: Model, body: int) -> int:
    return int(model.body_rootid[body])


def _hangs_from(model: Model, body: int, ancestor: int) -> bool:
    while body not in (0, ancestor):
        body = int(model.body_parentid[body])
    return body == ancestor


def _stretch(part: Any, model: Model, body: int, geom: int, factor: float) -> None:
    """Stretches one body of a specification; every position is read from the nominal model or not yet changed."""
    centre, half = model.geom_pos[geom], float(model.geom_size[geom, 1])
    axis = np.zeros(3)
    mujoco.mju_rotVecQuat(axis, np.array([0.0, 0.0, 1.0]), model.geom_quat[geom])

    def along(point: FloatArray) -> float:
        return float(np.clip((point - centre) @ axis, -half, half))

    anchored = along(_anchor(model, body))

    def moved(point: Any) -> FloatArray:
        place: FloatArray = np.array(point, np.float64)
        return place + (factor - 1.0) * (along(place) - anchored) * axis

    for index, other in enumerate(part.geoms):
        if np.isnan(other.fromto[0]):
            other.pos = moved(other.pos)
        else:
            ends = np.array(other.fromto, np.float64)
            is_main = model.body_geomadr[body] + index == geom
            # The link's own ends part; another geom moves as a whole.
            shift = moved(ends.reshape(2, 3).mean(0)) - ends.reshape(2, 3).mean(0)
            other.fromto = np.concatenate([moved(ends[:3]), moved(ends[3:])]) if is_main else ends + np.tile(shift, 2)
        if model.body_geomadr[body] + index == geom:
            if not np.isnan(other.mass):
                # A mass that the XML states follows as one from a density does.
                other.mass *= _bulk(other, factor * half) / _bulk(other, half)
            other.size = [other.size[0], factor * half, other.size[2]]
    for child in [*part.bodies, *part.sites]:
        child.pos = moved(child.pos)


def _bulk(geom: Any, half: float) -> float:
    """The volume of a capsule or cylinder of some half length, or its surface where only its skin weighs."""
    radius, capsule = float(geom.size[0]), geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE
    if geom.typeinertia == mujoco.mjtGeomInertia.mjINERTIA_SHELL:
        return 4 * np.pi * radius * half + (4 if capsule else 2) * np.pi * radius**2
    return 2 * np.pi * radius**2 * half + (4 / 3 * np.pi * radius**3 if capsule else 0.0)


def _anchor(model: Model, body: int) -> FloatArray:
    """Where a body hangs, in its own frame: its first hinge, or else its origin."""
    first = int(model.body_jntadr[body])
    for joint in range(first, first + int(model.body_jntnum[body])):
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE:
            return np.array(model.jnt_pos[joint], np.float64)
    return np.zeros(3)


def _bottom(model: Model, data: Any, geom: int) -> float:
    """The lowest height of a geom, in metres: exact for spheres and capsules, that of the bounding box for others."""
    height, rows = float(data.geom_xpos[geom, 2]), data.geom_xmat[geom, 6:]
    size, kind = model.geom_size[geom], model.geom_type[geom]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return height - float(size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return height - abs(float(rows[2])) * float(size[1]) - float(size[0])
    box = model.geom_aabb[geom]
    return height + float(rows @ box[:3]) - float(np.abs(rows) @ box[3:])


def _lift(model: Model, root: int, height: float) -> None:
    """Raises where a robot starts by ``height`` metres, if it has a joint that can.

    The body and the joint's reference move together, so that the joint's coordinate keeps its meaning. Constants that
    MuJoCo derives from the start state do not depend on its height.
    """
    if _raise(model, root, model.qpos0, height):
        model.body_pos[root, 2] += height
        address = int(model.jnt_qposadr[model.body_jntadr[root]])
        if model.jnt_type[model.body_jntadr[root]] == mujoco.mjtJoint.mjJNT_FREE:
            model.qpos_spring[address + 2] += height


def _raise(model: Model, root: int, position: FloatArray, height: float) -> bool:
    """Raises a robot in one state ``position`` (nq,), in place; False where no joint of its root can."""
    first = int(model.body_jntadr[root])
    for joint in range(first, first + int(model.body_jntnum[root])):
        kind, address = model.jnt_type[joint], int(model.jnt_qposadr[joint])
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            position[address + 2] += height
            return True
        if kind == mujoco.mjtJoint.mjJNT_SLIDE and abs(model.jnt_axis[joint, 2]) == 1.0:
            position[address] += float(model.jnt_axis[joint, 2]) * height
            return True
    return False
