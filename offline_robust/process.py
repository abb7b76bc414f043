"""This process: the versions it computes with, and on how many threads."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata

NUMERIC = ("offline-robust", "numpy", "torch", "gymnasium", "mujoco")
"""The packages that determine the numbers of datasets and evaluations."""
MISSING = "not installed"


def versions(packages: Sequence[str] = NUMERIC) -> dict[str, str]:
    """Of Python and of packages; `MISSING` for those that are not there."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = MISSING
    return installed


@contextmanager
def one_thread() -> Iterator[None]:
    """A forward of a few dozen rows is fastest on one thread, and rounded alike however many there are."""
    import torch  # takes seconds, and versions are asked for without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
