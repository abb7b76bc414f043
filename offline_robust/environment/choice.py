"""What a user says of an environment beside what the data say: some of it, or all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from offline_robust.environment.agreement import agree
from offline_robust.environment.imports import import_modules, imported, split_module
from offline_robust.environment.spec import EnvironmentSpec, WrapperSpec, make_spec
from offline_robust.errors import EvaluationError, nearest


@dataclass(frozen=True)
class EnvironmentChoice:
    """Parts of an `EnvironmentSpec`; None where nothing is said, so that the data's word stands."""

    id: str | None = None
    kwargs: Mapping[str, Any] | None = None
    step_limit: int | None = None
    wrappers: Sequence[Mapping[str, Any] | WrapperSpec | str] | None = None
    ignore_wrappers: tuple[str, ...] = ()
    """Wrappers of the data's environment to go on without, by name."""
    source: str = "env"
    """Who says so, for messages."""

    def on(self, recorded: EnvironmentSpec | None) -> EnvironmentSpec | None:
        """The environment that both describe; None where neither names one.

        Raises:
            EvaluationError: they disagree (both are named), or what is said is not of its kind.
        """
        if recorded is None:
            if self.id is None:
                if self.kwargs or self.wrappers or self.step_limit is not None:
                    raise EvaluationError(f"{self.source}: the data name no environment: say its id too")
                return None
            spec = make_spec(
                self.id,
                self.kwargs,
                step_limit=self.step_limit,
                wrappers=self.wrappers or (),
                imports=imported(),
                source=self.source,
            )
            return without(spec, self.ignore_wrappers)
        kept = without(recorded, self.ignore_wrappers)
        said = make_spec(
            self.id or kept.id,
            kept.kwargs if self.kwargs is None else self.kwargs,
            step_limit=kept.step_limit if self.step_limit is None else self.step_limit,
            wrappers=kept.wrappers if self.wrappers is None else self.wrappers,
            source=self.source,
        )
        if disagreement := agree(kept, said):
            raise EvaluationError(
                f"{disagreement}; leave it out of {self.source}, for data carry their environment (`evaluate --env` "
                "evaluates elsewhere)"
            )
        return kept


def as_choice(env: str | EnvironmentSpec | EnvironmentChoice | None, source: str = "env") -> EnvironmentChoice:
    """What the caller of a function said: nothing, an id (``module:Env-v0`` imports the module), all, or some of it.

    Raises:
        EvaluationError: the module cannot be imported.
    """
    if isinstance(env, EnvironmentChoice):
        return env
    if isinstance(env, EnvironmentSpec):
        return EnvironmentChoice(
            env.id, env.kwargs, env.step_limit, None if env.only_id else env.wrappers, source=env.source or source
        )
    if env is None:
        return EnvironmentChoice(source=source)
    module, env_id = split_module(env)
    if module:
        import_modules([module])
    return EnvironmentChoice(env_id, source=source)


def without(spec: EnvironmentSpec, names: Sequence[str]) -> EnvironmentSpec:
    """An environment without some of its wrappers.

    Raises:
        EvaluationError: it has no wrapper of that name.
    """
    there = [wrapper.name for wrapper in spec.wrappers]
    for name in names:
        if name not in there:
            known = nearest(name, there) if there else "; it has none"
            raise EvaluationError(f"--ignore-wrapper {name[:80]}: {spec.id} has no such wrapper{known}")
    return replace(spec, wrappers=tuple(wrapper for wrapper in spec.wrappers if wrapper.name not in names))
