"""Names to classes: ours, those that a program registers, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Generic, TypeVar

from offline_robust.errors import ConfigError

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """Classes by name.

    A package brings its own by an entry point of the group, name to class; its module is imported when the name is
    first asked for, never for a list of names. Names of ours cannot be taken.

    Args:
        group: of the entry points, for example ``offline_robust.learners``.
        base: what every class must derive from.
        classes: ours.
    """

    def __init__(self, group: str, base: type[T], classes: Mapping[str, type[T]]) -> None:
        self.group, self._base = group, base
        self._classes: dict[str, type[T]] = dict(classes)
        self._ours = frozenset(self._classes)
        self._points: dict[str, metadata.EntryPoint] | None = None

    def register(self, name: str, kind: type[T], *, ours: bool = False) -> None:
        """Adds a class, or replaces one that was added in the same way.

        Raises:
            ConfigError: the name is one of ours, or the class is not of the right kind.
        """
        if name in self._ours and not (ours and self._classes[name] is kind):
            raise ConfigError(f"{name!r} is a name of offline-robust's own; give yours another")
        self._classes[name] = self._checked(name, kind, "registered")
        if ours:
            self._ours |= {name}

    @property
    def own(self) -> Mapping[str, type[T]]:
        """Those of this library."""
        return {name: kind for name, kind in self._classes.items() if name in self._ours}

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            self._classes[name] = self._brought(name)
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes or name in self._entry_points

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._classes), **dict.fromkeys(self._entry_points)})

    def __len__(self) -> int:
        return len(self._classes.keys() | self._entry_points.keys())

    @property
    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        if self._points is None:
            self._points = {
                point.name: point for point in metadata.entry_points(group=self.group) if point.name not in self._ours
            }
        return self._points

    def _brought(self, name: str) -> type[T]:
        point = self._entry_points[name]
        brought_by = f"brought by {point.dist.name if point.dist else point.value}"
        try:
            kind = point.load()
        except Exception as error:  # it is somebody else's module
            line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(f"{name!r}, {brought_by}, cannot be imported: {line}") from None
        return self._checked(name, kind, brought_by)

    def _checked(self, name: str, kind: type[T], brought_by: str) -> type[T]:
        if not (isinstance(kind, type) and issubclass(kind, self._base)):
            raise ConfigError(f"{name!r}, {brought_by}, is not a class that derives from {self._base.__name__}")
        return kind
