"""Fills in the tables of docs/reference/perturbations.md and suites.md, so that they cannot go stale.

The first page's tables come from the registry of parameters, the second one's from the bundled suites. Everything
between ``<!-- table: NAME -->`` and ``<!-- end of table -->`` is replaced; the rest of the pages is written by hand.

python docs/figures/parameters.py
python docs/figures/parameters.py --check        # leaves with 1 when a page differs
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from offline_robust.envs import ParameterSpec, Perturbation, System, list_suites, load_suite, system

REFERENCE = Path(__file__).parents[1] / "reference"
SUITES = Path(__file__).parents[2] / "configs" / "suites"
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

CLASSIC = {
    "pendulum": ("Pendulum-v1",),
    "cartpole": ("CartPole-v1", "ContinuousCartPole-v0"),
    "acrobot": ("Acrobot-v1",),
    "mountain-car": ("MountainCar-v0", "MountainCarContinuous-v0"),
    "lunar-lander": ("LunarLander-v3", "LunarLanderContinuous-v3"),
}
"""Tables of environments that are simulated by other means than MuJoCo."""

MUJOCO = (
    "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
    "Pusher", "Reacher", "Swimmer", "Walker2d",
)  # fmt: skip

FAMILIES = {
    "gravity": "", "wind_x": "", "density": "", "viscosity": "", "timestep": "",
    "mass": "BODY", "torso_push_x": "BODY", "thigh_length": "LINK", "limb_length": "",
    "friction": "", "world_friction": "", "floor_friction": "",
    "damping": "JOINT", "stiffness": "JOINT", "springref": "JOINT", "armature": "JOINT", "frictionloss": "JOINT",
    "gear": "JOINT", "ctrlrange": "JOINT",
}  # fmt: skip
"""One parameter of each MuJoCo family, as Hopper-v5 has it, and the kind of name that may stand before it."""


def parameter_tables() -> dict[str, str]:
    """The tables of the page on perturbations."""
    anywhere = {name: spec for name, spec in system("Pendulum-v1").parameters.items() if spec.target != "physics"}
    tables = {
        target: rows(
            ["parameter", "unit", "range", "by default", "meaning"],
            [described(spec) for spec in anywhere.values() if spec.target == target],
        )
        for target in ("observation", "action")
    }
    tables.update({name: classic(env_ids) for name, env_ids in CLASSIC.items()})
    return {**tables, "mujoco": families(), "mujoco-names": names()}


def classic(env_ids: Iterable[str]) -> str:
    """Every parameter of some environments that share most of them."""
    systems = [system(env_id) for env_id in env_ids]
    found: dict[str, ParameterSpec] = {}
    for of in systems:
        found.update({name: of.parameters[name] for name in of.nominal if name not in found})
    cells = []
    for name, spec in found.items():
        nominal = [shown(of.nominal[name]) if name in of.nominal else "–" for of in systems]
        one = nominal[0] if len(set(nominal)) == 1 else " / ".join(nominal)
        cells.append([*described(spec)[:2], one, *described(spec)[2:]])
    return rows(["parameter", "unit", "nominal", "range", "by default", "meaning"], cells)


def families() -> str:
    """What MuJoCo's models offer, one row for each kind of quantity."""
    specs = system("Hopper-v5").parameters
    cells = []
    for name, before in FAMILIES.items():
        spec = specs[name]
        _, unit, limits, mode, meaning = described(spec)
        title = {"wind_x": "`wind_x`, `_y`, `_z`", "torso_push_x": "`BODY_push_x`, `_y`, `_z`"}.get(name, f"`{name}`")
        if name == "thigh_length":
            title, meaning = "`LINK_length`", meaning.replace("of the thigh", "of one link")
        elif name == "limb_length":
            meaning = "lengths of every link but the torso, scaled alike"
        elif before and name != "torso_push_x":
            title = f"`{name}`, `{before}_{name}`"
            meaning = meaning.replace("all limb joints", "all limb joints, or of one").replace(
                "every motor", "every motor, or of one"
            )
        varies = name in ("density", "viscosity") or (before == "JOINT" and name != "springref")
        cells.append([title, unit, limits, "scale, absolute where nominally 0" if varies else mode, meaning])
    return rows(["parameter", "unit", "range", "by default", "meaning"], cells)


def names() -> str:
    """For each MuJoCo environment the words that stand for LINK, BODY and JOINT."""
    cells = []
    for robot in MUJOCO:
        of = system(f"{robot}-v5")
        friction = "yes" if "floor_friction" in of.nominal else "none"
        words = [words_before(of, ending) for ending in ("length", "mass", "damping", "gear")]
        words[3] = "the same" if words[3] == words[2] else words[3]
        cells.append([f"`{robot}-v5`", *words, friction])
    return rows(["environment", "LINK", "BODY", "JOINT", "motors at", "friction"], cells)


def words_before(of: System, ending: str) -> str:
    """What stands before ``_ending`` in an environment's parameters."""
    return ", ".join(name.removesuffix(f"_{ending}") for name in of.nominal if name.endswith(f"_{ending}")) or "–"


def described(spec: ParameterSpec) -> list[str]:
    """Name, unit, range, default mode and meaning."""
    left = "(" if spec.low_open else "["
    meaning = spec.meaning + ("; cannot move inside an episode" if spec.structural else "")
    limits = f"{left}{spec.low:,g}, {spec.high:,g}]".replace("e+0", "e")
    return [f"`{spec.name}`", spec.unit, limits, spec.default_mode, meaning]


def shown(values: Any) -> str:
    """One number, or several."""
    return ", ".join(f"{value:g}" for value in np.atleast_1d(values))


def suite_tables() -> dict[str, str]:
    """The tables of the page on suites: an overview, and one for each suite."""
    overview, tables = [], {}
    for name in list_suites():
        content = yaml.safe_load((SUITES / f"{name}.yaml").read_text(encoding="utf-8"))
        suite = load_suite(name)
        counts = {env_id: len(suite.for_system(system(env_id))) for env_id in suite.env_ids or ("Pendulum-v1",)}
        listed = ", ".join(f"`{env_id}` {count}" for env_id, count in counts.items())
        where = listed if suite.env_ids else f"any environment {counts['Pendulum-v1']}"
        overview.append([f"[`{name}`](#{name})", where])
        cells = [row for block in content.get("environments") or [content] for row in block_rows(block)]
        head = ["environment", "parameter", "mode", "levels", "held at every level"]
        if not any(row[-1] for row in cells):
            head, cells = head[:-1], [row[:-1] for row in cells]
        tables[name] = f"> {suite.source}\n\n" + rows(head, cells)
    return {"overview": rows(["suite", "conditions, the nominal one included"], overview), **tables}


def block_rows(block: Mapping[str, Any]) -> list[list[str]]:
    """What one block of a suite does: a row for each sweep, each grid, and each group of conditions that are alike."""
    found = []
    for axis in block.get("sweeps", []):
        held = ", ".join(Perturbation(**entry).label for entry in axis.get("with", []))
        found.append([f"`{axis['parameter']}`", axis_mode(axis), levels(axis["levels"]), held])
    if axes := block.get("grid", []):
        crossed = " × ".join(f"`{axis['parameter']}`" for axis in axes)
        found.append([crossed, axis_mode(axes[0]), " × ".join(levels(axis["levels"]) for axis in axes), ""])
    together = [tuple(Perturbation(**entry) for entry in entries) for entries in block.get("conditions", [])]
    for (parameters, how), group in groupby(together, lambda one: (tuple(p.parameter for p in one), schedules(one))):
        shown_levels = "; ".join(spans(one) for one in group)
        found.append([" + ".join(f"`{name}`" for name in parameters), how, shown_levels, ""])
    where = "<br>".join(f"`{env_id}`" for env_id in block.get("env_ids", [])) or "any"
    return [[where if k == 0 else "", *row] for k, row in enumerate(found)]


def schedules(together: Iterable[Perturbation]) -> str:
    """The schedules of perturbations that act together."""
    moving = {f"{p.schedule}{f' over {p.period} steps' if p.period else ''}" for p in together if p.moves}
    return ", ".join(sorted(moving)) or "together"


def spans(together: Iterable[Perturbation]) -> str:
    """The levels of perturbations that act together."""
    found = [span(p) for p in together]
    alike = len(found) > 2 and len(set(found)) == 1
    return f"each {found[0]}" if alike else ", ".join(found)


def span(p: Perturbation) -> str:
    """The level of one perturbation, or where it moves."""
    sign = "×" if p.mode == "scale" else ""
    if not p.moves:
        return f"{sign}{p.level:g}"
    start = "nominal" if p.start is None else f"{sign}{p.start:g}"
    return f"{start} to {sign}{p.level:g}"


def axis_mode(axis: Mapping[str, Any]) -> str:
    """The mode of an axis, and its schedule."""
    period = f" over {axis['period']} steps" if "period" in axis else ""
    return axis["mode"] + (f", {axis['schedule']}{period}" if "schedule" in axis else "")


def levels(given: Any) -> str:
    """Levels of a suite in words."""
    if isinstance(given, list):
        return ", ".join(f"{level:g}" for level in given)
    low, high, count = given.split(":")
    return f"{low} to {high}, {count} levels"


def rows(head: list[str], cells: Iterable[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "&#124;") for cell in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the pages, or compares them with the files."""
    for page, tables in (("perturbations.md", parameter_tables()), ("suites.md", suite_tables())):
        path = REFERENCE / page
        text = path.read_text(encoding="utf-8")
        wanting = set(tables) - {match[2] for match in TABLE.finditer(text)}
        if wanting:
            sys.exit(f"{path} has no place for: {', '.join(sorted(wanting))}")
        filled = TABLE.sub(lambda match: match[1] + tables[match[2]] + match[3], text)  # noqa: B023 - used at once
        if "--check" not in sys.argv[1:]:
            path.write_text(filled, encoding="utf-8")
        elif filled != text:
            sys.exit(f"{path} is stale: python docs/figures/parameters.py")


if __name__ == "__main__":
    main()
