"""Modules that the user names so that their environments and wrappers are there; never what a file names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from offline_robust.errors import EvaluationError

_named: dict[str, str] = {}
"""Modules of this process that the user named: the module's name, and what was given."""


def import_modules(given: Iterable[str]) -> tuple[str, ...]:
    """Imports modules that the user named, as Gymnasium needs for the environments that they register.

    A name is looked up as Python does, and beside that in the working directory; a path to a ``.py`` file is taken too.
    What was imported before is not imported again.

    Args:
        given: names such as ``gymnasium_robotics`` or ``my_package.envs``, or paths.

    Returns:
        What to give to another process for the same: names, and absolute paths.

    Raises:
        EvaluationError: there is no such module, or it fails while it is imported.
    """
    return tuple(_import(text.strip()) for text in given if text.strip())


def imported() -> tuple[str, ...]:
    """What the user named in this process, in order, as `import_modules` returns it."""
    return tuple(dict.fromkeys(_named.values()))


def named_by_user(module: str) -> bool:
    """Whether the user named a module, or a package that it lies in."""
    parents = module.split(".")
    return any(".".join(parents[: depth + 1]) in _named for depth in range(len(parents)))


def split_module(text: str) -> tuple[str, str]:
    """``module:Env-v0`` to ``("module", "Env-v0")``, and ``Env-v0`` to ``("", "Env-v0")``."""
    module, colon, env_id = text.rpartition(":")
    return (module, env_id) if colon else ("", text)


def _import(text: str) -> str:
    if text.endswith(".py"):
        return _from_file(Path(text).expanduser())
    try:
        if importlib.util.find_spec(text.partition(".")[0]) is None:
            # Below everything that is installed: nothing of the working directory takes the place of a package.
            sys.path.append(os.getcwd())
        module = importlib.import_module(text)
    except Exception as error:  # the module decides what goes wrong in it
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        advice = "" if not isinstance(error, ModuleNotFoundError) else "; install it, or give the path of its .py file"
        raise EvaluationError(f"--import {text[:100]}: cannot be imported ({said}){advice}") from None
    where = getattr(module, "__file__", None)
    local = where is not None and Path(where).resolve().is_relative_to(Path.cwd().resolve()) and "." not in text
    single = local and Path(str(where)).name != "__init__.py" and "site-packages" not in str(where)
    _named[text] = str(Path(str(where)).resolve()) if single else text
    return _named[text]


def _from_file(path: Path) -> str:
    name, full = path.stem, str(path.resolve())
    if not path.is_file() or not name.isidentifier():
        raise EvaluationError(f"--import {str(path)[:200]}: no such file, or its name is not one of a module")
    there = sys.modules.get(name)
    if there is not None:
        if str(Path(str(getattr(there, "__file__", ""))).resolve()) != full:
            raise EvaluationError(f"--import {path}: another module is called {name} here; rename the file")
    else:
        spec = importlib.util.spec_from_file_location(name, full)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.append(str(path.resolve().parent))  # what it imports from beside it
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the module decides what goes wrong in it
            del sys.modules[name]
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise EvaluationError(f"--import {path}: fails ({said})") from None
        _named[name] = full
    return full
