"""An evaluation goes on from finished conditions only while all that its simulator reads is what it was."""

from __future__ import annotations

import importlib
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv

from offline_robust.environment import make_env, make_spec
from offline_robust.envs import model_files, system
from offline_robust.envs.identity import environment_identity
from offline_robust.evaluation import Results, evaluate
from offline_robust.networks import Policy, policy_spec

OWN = "Own/Lift-v0"
SCENE = """<mujoco><compiler meshdir="assets/shapes"/><include file="robot/main.xml"/>
<asset><mesh name="rock" file="rock.obj"/><hfield name="hills" file="hills.bin" size="1 1 .1 .1"/>
<model name="cart" file="other/cart.xml"/></asset>
<worldbody><geom type="hfield" hfield="hills" pos="3 0 -1"/><geom type="mesh" mesh="rock" pos="-3 0 0"/>
<frame pos="5 0 0"><attach model="cart" body="cart" prefix="cart-"/></frame></worldbody></mujoco>"""
MAIN = """<mujoco><include file="sizes.xml"/><worldbody><body><joint name="lift" type="slide" axis="0 0 1"/>
<geom class="robot"/></body></worldbody><actuator><motor joint="lift" ctrlrange="-1 1"/></actuator></mujoco>"""
SIZES = '<mujoco><default><default class="robot"><geom size=".1" mass="{mass}"/></default></default></mujoco>'
CART = """<mujoco><compiler meshdir="{folder}"/><asset><mesh name="wheel" file="wheel.obj"/></asset><worldbody>
<body name="cart"><geom type="mesh" mesh="wheel" mass="1"/></body></worldbody></mujoco>"""


def block(length: float) -> str:
    corners = [f"v {x} {y} {z}" for x in (0, length) for y in (0, 1) for z in (0, 1)]
    faces = ["f 1 2 4", "f 1 4 3", "f 5 7 8", "f 5 8 6", "f 1 5 6", "f 1 6 2", "f 3 4 8", "f 3 8 7", "f 1 3 7",
             "f 1 7 5", "f 2 6 8", "f 2 8 4"]  # fmt: skip
    return "\n".join([*corners, *faces]) + "\n"


def hills(height: float) -> bytes:
    return struct.pack("<ii", 2, 2) + np.array([0, height, 0, 1], "<f4").tobytes()


READ = {
    "scene.xml", "robot/main.xml", "robot/sizes.xml", "assets/shapes/rock.obj", "assets/shapes/hills.bin",
    "other/cart.xml", "other/wheels/wheel.obj",
}  # fmt: skip
"""What MuJoCo reads of the scene; an unused mesh lies beside."""


def write_scene(folder: Path) -> str:
    contents: dict[str, str | bytes] = {
        "scene.xml": SCENE,
        "robot/main.xml": MAIN,
        "robot/sizes.xml": SIZES.format(mass=1.0),
        "assets/shapes/rock.obj": block(1),
        "assets/shapes/hills.bin": hills(0.5),
        "other/cart.xml": CART.format(folder="wheels"),
        "other/wheels/wheel.obj": block(1),
        "assets/shapes/unused.obj": block(1),
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder / "scene.xml")


class Lift(MujocoEnv):
    """A user's environment; the file is an argument, or one of its own."""

    metadata = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 100}  # noqa: RUF012

    def __init__(self, xml_file: str = "") -> None:
        space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        super().__init__(xml_file or os.environ["OWN_SCENE"], 5, observation_space=space)

    def step(self, action: Any) -> Any:
        self.do_simulation(action, self.frame_skip)
        return self.reset_model(), float(self.data.qvel[0]), False, False, {}

    def reset_model(self) -> Any:
        return np.concatenate([self.data.qpos, self.data.qvel])


class Nest(gym.Env[Any, Any]):
    """An environment around another one, which holds the model."""

    def __init__(self, xml_file: str) -> None:
        self.within = {"robots": [Lift(xml_file)]}
        self.observation_space, self.action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-1, 1, (1,))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gym.register(OWN, entry_point=Lift, max_episode_steps=20)
    yield
    del gym.registry[OWN]


def make_policy(observations: int = 2) -> Policy:
    policy = Policy(policy_spec("deterministic", observations, gym.spaces.Box(-1.0, 1.0, (1,)), (4,), make_spec(OWN)))
    rng = np.random.default_rng(0)
    for parameter in policy.actor.parameters():
        parameter.data.copy_(parameter.new_tensor(rng.normal(size=parameter.shape)))
    return policy


def run(xml: str, cells: Path | None) -> Results:
    return evaluate(
        make_policy(), OWN, perturb="mass=0.5,1", episodes=2, env_kwargs={"xml_file": xml}, cells=cells
    )  # fmt: skip


def test_every_file_that_the_simulator_reads_is_found_and_no_other(tmp_path: Path) -> None:
    xml = write_scene(tmp_path)
    for named in ({"xml_file": xml}, {"files": [{"of": Path(xml)}]}):
        found = model_files.model_files(named)
        assert {str(path.relative_to(tmp_path.resolve())) for path in found} == READ
        assert len(found) == len(READ)


@pytest.mark.parametrize("name", sorted(READ))
def test_a_change_of_any_file_changes_what_an_environment_is(tmp_path: Path, name: str) -> None:
    kwargs = {"xml_file": write_scene(tmp_path)}
    before = environment_identity(make_spec(OWN, kwargs))
    assert environment_identity(make_spec(OWN, kwargs)) == before
    (tmp_path / "assets" / "shapes" / "unused.obj").write_text(block(9))
    assert environment_identity(make_spec(OWN, kwargs)) == before
    path = tmp_path / name
    changed = {".obj": block(2), ".bin": hills(0.9)}.get(path.suffix)
    if changed is None:
        changed = path.read_text().replace('mass="1', 'mass="2').replace('axis="0 0 1"', 'axis="0 1 0"')
        changed = changed.replace("5 0 0", "6 0 0")
    path.write_bytes(changed.encode() if isinstance(changed, str) else changed)
    after = environment_identity(make_spec(OWN, kwargs))
    assert after["files"] != before["files"]
    assert after["code"] == before["code"]


def test_an_evaluation_after_an_included_file_changed_gives_the_new_figures(tmp_path: Path) -> None:
    xml, cells = write_scene(tmp_path / "scene"), tmp_path / "cells"
    first = run(xml, cells).frame["return"]
    np.testing.assert_array_equal(run(xml, cells).frame["return"], first)
    kept = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    (tmp_path / "scene" / "robot" / "sizes.xml").write_text(SIZES.format(mass=5.0))
    again, fresh = run(xml, cells).frame["return"], run(xml, None).frame["return"]
    np.testing.assert_array_equal(again, fresh)
    assert np.abs(again - first).max() > 1e-3
    assert len(list(cells.iterdir())) == 2 * len(kept)
    # Nominal values, too, are those of the file as it is now.
    assert system(make_spec(OWN, {"xml_file": xml})).nominal["mass"].max() == 5.0


@pytest.mark.parametrize("look", [system, environment_identity])
def test_assets_rewritten_within_a_second_are_read_again(tmp_path: Path, look: Callable[..., Any]) -> None:
    kwargs = {"xml_file": write_scene(tmp_path)}
    found = []
    for k, height in enumerate((0.25, 0.75)):
        path = tmp_path / "assets" / "shapes" / "hills.bin"
        path.write_bytes(hills(height))
        os.utime(path, ns=(0, 10**18 + k))
        look(make_spec(OWN, kwargs))
        found.append(make_env(make_spec(OWN, kwargs)).unwrapped.model.hfield_data.tolist())  # type: ignore[attr-defined]
    assert found == [[0, 0.25, 0, 1], [0, 0.75, 0, 1]]


def test_a_file_that_a_class_names_itself_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_SCENE", write_scene(tmp_path))
    before = environment_identity(make_spec(OWN, {}))
    (tmp_path / "robot" / "sizes.xml").write_text(SIZES.format(mass=2.0))
    after = environment_identity(make_spec(OWN, {}))
    assert {name for name in before if before[name] != after[name]} == {"files", "models"}


def test_a_model_deep_inside_an_environment_counts_wherever_its_file_is(tmp_path: Path) -> None:
    gym.register("Own/Nest-v0", entry_point=Nest)
    try:
        kwargs = {"xml_file": write_scene(tmp_path)}
        before = environment_identity(make_spec("Own/Nest-v0", kwargs))
        (tmp_path / "robot" / "sizes.xml").write_text(SIZES.format(mass=2.0))
        assert environment_identity(make_spec("Own/Nest-v0", kwargs))["models"] != before["models"]
    finally:
        del gym.registry["Own/Nest-v0"]


def circle(folder: Path) -> None:
    (folder / "robot" / "main.xml").write_text(MAIN.replace("sizes.xml", "../scene.xml"))


def unreadable(folder: Path) -> None:
    (folder / "robot" / "main.xml").chmod(0)


def gone(folder: Path) -> None:
    (folder / "robot" / "sizes.xml").unlink()


def a_folder(folder: Path) -> None:
    gone(folder)
    (folder / "robot" / "sizes.xml").mkdir()


def a_pipe(folder: Path) -> None:
    gone(folder)
    os.mkfifo(folder / "robot" / "sizes.xml")


def a_circle_of_links(folder: Path) -> None:
    gone(folder)
    (folder / "robot" / "sizes.xml").symlink_to("sizes.xml")


def strange_names(folder: Path) -> None:
    names = ["x" * 900 + ".obj", "a\x00b.obj", "~nobody/x.obj", "../" * 200 + "x.obj", "http://a/b.obj", "&#0;.obj"]
    (folder / "scene.xml").write_bytes("".join(f'<mesh file="{name}"/>' for name in names).encode("utf-8", "ignore"))


def many_folders(folder: Path) -> None:
    (folder / "scene.xml").write_text("".join(f'<a meshdir="d{k}" file="f{k}.obj"/>' for k in range(300)))


def damaged(folder: Path) -> None:
    (folder / "scene.xml").write_bytes(b'<mesh file="' + bytes(range(256)) * 50)


@pytest.mark.parametrize(
    "spoil",
    [circle, unreadable, gone, a_folder, a_pipe, a_circle_of_links, strange_names, many_folders, damaged],
)
def test_files_that_are_missing_or_broken_never_stop_the_search(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    xml = write_scene(tmp_path)
    spoil(tmp_path)
    named = {
        "xml_file": xml,
        "motion": "~nobody-of-that-name/x.npz",
        "text": "\0",
        "none": None,
        "folder": str(tmp_path),
    }
    found = model_files.model_files(named)
    assert found[0].name == "scene.xml"
    assert len(model_files.files_digest(found)) == 64
    assert model_files.files_stamp(named)


def test_beyond_a_bound_sizes_and_times_stand_for_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml = write_scene(tmp_path)
    monkeypatch.setattr(model_files, "_MAX_HASHED", 10)
    before = model_files.files_digest(model_files.model_files({"x": xml}))
    assert model_files.files_digest(model_files.model_files({"x": xml})) == before
    (tmp_path / "assets" / "shapes" / "rock.obj").write_text(block(2))
    assert model_files.files_digest(model_files.model_files({"x": xml})) != before


PACKAGE = {
    "mypackage/__init__.py": "",
    "mypackage/base.py": "import gymnasium as gym\n\nfrom .rewards import SCALE\n\n"
    "class Base(gym.Env):\n    observation_space = gym.spaces.Box(-1, 1, (2,))\n"
    "    action_space = gym.spaces.Box(-1, 1, (1,))\n",
    "mypackage/rewards.py": "SCALE = 1.0\n",
    "mypackage/other.py": "",
    "mypackage/env.py": "from mypackage.base import Base\n\nclass Mine(Base):\n    pass\n",
    "single.py": "import helper\nfrom mypackage.base import Base\n\nclass Single(Base):\n    scale = helper.SCALE\n",
    "helper.py": "SCALE = 1.0\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    gym.register("Mine-v0", entry_point="mypackage.env:Mine")
    gym.register("Single-v0", entry_point="single:Single")
    yield tmp_path
    for name in ("Mine-v0", "Single-v0"):
        del gym.registry[name]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mypackage", "single", "helper")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("env_id", "names"),
    [
        ("Mine-v0", {"mypackage/env.py", "mypackage/base.py", "mypackage/rewards.py", "mypackage/__init__.py"}),
        ("Single-v0", set(PACKAGE) - {"mypackage/env.py", "mypackage/other.py"}),
    ],
)
def test_the_code_of_base_classes_and_of_what_they_use_counts(package: Path, env_id: str, names: set[str]) -> None:
    before = environment_identity(make_spec(env_id, {}))["code"]
    changed = set()
    for name, text in PACKAGE.items():
        (package / name).write_text(text + "# another\n")
        if environment_identity(make_spec(env_id, {}))["code"] != before:
            changed.add(name)
        (package / name).write_text(text)
    assert changed == names
    assert environment_identity(make_spec(env_id, {}))["code"] == before


def test_a_class_typed_into_a_notebook_is_told_from_its_next_version() -> None:
    text = """
import gymnasium as gym
class Typed(gym.Env):
    observation_space = action_space = gym.spaces.Box(-1, 1, (1,))
    def step(self, action):
        return [{0}], 0.0, False, False, {{}}
"""
    found = []
    for number in (1, 1, 2):
        space: dict[str, Any] = {"__name__": "typed_by_hand"}
        exec(text.format(number), space)
        gym.register("Typed-v0", entry_point=space["Typed"])
        found.append(environment_identity(make_spec("Typed-v0", {}))["code"])
        del gym.registry["Typed-v0"]
    assert found[0] == found[1] != found[2]
