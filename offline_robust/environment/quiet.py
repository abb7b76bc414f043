"""MuJoCo's compiler, kept quiet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco


@contextmanager
def quiet_compiler() -> Iterator[None]:
    """Keeps MuJoCo's compiler from printing warnings and from leaving a MUJOCO_LOG.TXT in the working directory.

    HalfCheetah's XML triggers one each time it is read. The warnings of every thread are silenced meanwhile; errors
    still raise.
    """
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        mujoco.set_mju_user_warning(before)
