"""What the figures of an environment depend on beside its name: its code, its files, the models that it runs."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import gymnasium as gym
import numpy as np

from offline_robust.environment import EnvironmentSpec, make_env
from offline_robust.environment.wrappers import Env
from offline_robust.envs.model_files import files_digest, forget_assets, model_files
from offline_robust.envs.parts import layers, parts_of

_MAX_MODULES = 2_000
_VERSIONED = {"gymnasium", "mujoco", "numpy", "torch", "offline_robust", "builtins", *sys.stdlib_module_names}
"""Packages that results and cells name with their versions, or whose code they hash, and Python's own."""


def environment_identity(environment: EnvironmentSpec) -> dict[str, str]:
    """Hashes that change with whatever an environment is made of.

    Returns:
        entry_point: where it comes from.
        code: the modules of its classes, of their bases and of its wrappers outside of Gymnasium, with the modules of
            the same package or folder that these import.
        files: those that its arguments name and what these include, see `model_files`.
        models: every compiled `mujoco.MjModel` that it holds, so whatever files these come from.

    Raises:
        EvaluationError: the environment cannot be made.
    """
    forget_assets()
    env = make_env(environment)  # before its registration is looked up, which our own environments have from it
    entry = gym.spec(environment.id).entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else str(getattr(entry, "__module__", ""))
    name = entry if isinstance(entry, str) else f"{module}:{getattr(entry, '__qualname__', '')}"
    # The file that a class names itself is in no argument.
    named = {"arguments": environment.kwargs, "own": getattr(env.unwrapped, "fullpath", None)}
    try:
        return {
            "entry_point": name,
            "code": _source_digest({cls for layer in layers(env) for cls in type(layer).__mro__}, module),
            "files": files_digest(model_files(named)),
            "models": _models(env),
        }
    finally:
        env.close()  # type: ignore[no-untyped-call]


@lru_cache(maxsize=64)
def code_digest(kind: type) -> str:
    """A class by name, with a hash of its source and that of its bases where they are not this library's."""
    foreign = any(cls.__module__.partition(".")[0] not in _VERSIONED for cls in kind.__mro__)
    return f"{kind.__module__}:{kind.__qualname__} {_source_digest(set(kind.__mro__)) if foreign else ''}"


def _source_digest(classes: set[type], entry: str = "") -> str:
    own = [cls for cls in classes if cls.__module__.partition(".")[0] not in _VERSIONED]
    modules = _modules({entry, *(cls.__module__ for cls in own)})
    paths = [path for module in modules.values() if (path := _source(module)) is not None]
    digest = hashlib.sha256(files_digest(paths).encode())
    # What was typed into a notebook has no file.
    for cls in sorted(
        (cls for cls in own if _source(modules.get(cls.__module__)) is None), key=lambda cls: cls.__name__
    ):
        for name, value in sorted(vars(cls).items()):
            code = getattr(value, "__code__", None)
            digest.update(f"{cls.__qualname__}.{name}{_bytecode(code) if code else repr(value)[:1_000]}".encode())
    return digest.hexdigest()


def _modules(names: set[str]) -> dict[str, ModuleType]:
    """Loaded modules, and those of their own packages or folders that they import."""
    found: dict[str, ModuleType] = {}
    ahead = sorted(names)
    while ahead and len(found) < _MAX_MODULES:
        name = ahead.pop()
        module = sys.modules.get(name)
        if module is None or name in found:
            continue
        found[name] = module
        if name.partition(".")[0] not in _VERSIONED:
            parents = {name.rpartition(".")[0]} - {""}
            ahead += sorted(other for other in _referred(module) | parents if _at_home(module, other))
    return found


def _referred(module: ModuleType) -> set[str]:
    """The modules that a module's source imports, anywhere in it."""
    path = _source(module)
    names: set[str] = set()
    try:
        tree = ast.parse(path.read_bytes()) if path is not None and path.suffix == ".py" else None
    except (OSError, SyntaxError, ValueError):
        return set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = (module.__package__ or "").split(".")
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def _at_home(module: ModuleType, other: str) -> bool:
    """Whether another module is of the same package, or lies in the folder of a module that is of none."""
    if module.__name__.partition(".")[0] == other.partition(".")[0]:
        return True
    here, there = _source(module), _source(sys.modules.get(other))
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")}
    if here is None or there is None or any(folder in there.parents for folder in installed):
        return False
    return here.parent in there.parents


def _source(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    path = Path(file).resolve() if isinstance(file, str) else None
    return path if path is not None and path.is_file() else None


def _bytecode(code: Any) -> str:
    if not isinstance(code, CodeType):
        return ""
    constants = [_bytecode(value) or repr(value) for value in code.co_consts]
    return f"{code.co_code.hex()}{code.co_names}{constants}"


def _models(env: Env) -> str:
    """SHA-256 of every number, name and option of the MuJoCo models in an environment."""
    found = {id(part): part for layer in layers(env) for _, _, part in parts_of(layer) if _is_model(part)}
    digests = []
    for model in found.values():
        digest = hashlib.sha256()
        for holder in (model, model.opt, model.stat):
            for name in (name for name in dir(holder) if not name.startswith("_") and name != "paths"):
                value: Any = getattr(holder, name)
                if isinstance(value, np.ndarray | int | float | bytes):
                    digest.update(name.encode())
                    digest.update(value if isinstance(value, bytes) else np.ascontiguousarray(value).data)
        digests.append(digest.hexdigest())
    return " ".join(sorted(set(digests)))


def _is_model(value: Any) -> bool:
    return type(value).__name__ == "MjModel" and type(value).__module__.partition(".")[0] == "mujoco"
