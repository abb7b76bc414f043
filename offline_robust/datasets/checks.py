"""Every finding about logged data, with row numbers. The loader refuses on errors; `data check` reports all."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np

from offline_robust.datasets.assemble import Layout, fit_actions, layout
from offline_robust.datasets.findings import Finding, FindingSeverity, numbered
from offline_robust.datasets.logged import Array, Logged


def findings(logged: Logged) -> list[Finding]:
    """All findings of the reader and of the checks below, errors first. The spaces must be filled in."""
    ends = layout(logged)
    found = [*logged.problems, *_not_finite(logged), *_spaces(logged), *_flags(logged, ends), *_chains(logged, ends)]
    found += [*_rounded(logged), *_inferred(logged), *_constant(logged)]
    return sorted(found, key=lambda problem: problem.severity != "error")


def _not_finite(logged: Logged) -> Iterator[Finding]:
    arrays = {"observations": logged.observations, "actions": logged.actions, "rewards": logged.rewards}
    # Minari's next observations are its observations, but for the last one of every episode.
    if logged.next_observations is not None:
        arrays["next_observations"] = logged.next_observations
    for name, values in arrays.items():
        if values.dtype.kind != "f":
            continue
        bad = ~np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if name == "next_observations":
            bad = bad if logged.next_valid is None else bad & logged.next_valid
            if logged.names.get(name) == "observations":
                bad = bad & layout(logged).end
        if bad.any():
            mend = "remove those rows' episodes, or log the values again"
            yield _rows("error", logged, name, bad, "NaN or infinite values (or beyond float32)", mend)


def _spaces(logged: Logged) -> Iterator[Finding]:
    """Widths against the spaces, and actions against their bounds."""
    assert logged.observation_space is not None
    width, wanted = logged.observations.shape[1], logged.observation_space.shape[0]
    if width != wanted:
        what = f"has width {width} where the observation space has {wanted}"
        yield Finding("error", logged.name("observations"), what, "use the environment that the data came from")
    actions, space = fit_actions(logged), logged.action_space
    at = logged.name("actions")
    if isinstance(space, gym.spaces.Discrete):
        if actions.dtype.kind == "f":
            what = f"holds floating numbers of width {actions.shape[1]} where the action space is {space}"
            yield Finding("error", at, what, "store whole numbers, or use the environment that the data came from")
            return
        outside = np.asarray((actions < space.start) | (actions >= space.start + space.n))
        if outside.any():
            what = f"actions outside {space.start}..{space.start + space.n - 1}"
            yield _rows("error", logged, "actions", outside, what, "use the environment that the data came from")
        return
    assert space is not None
    if actions.shape[1] != space.shape[0]:
        what = f"has width {actions.shape[1]} where the action space has {space.shape[0]}"
        yield Finding("error", at, what, "use the environment that the data came from")
        return
    with np.errstate(invalid="ignore", over="ignore"):
        margin = 1e-4 * np.maximum(1.0, np.abs(np.where(np.isfinite(space.high), space.high, 0.0)))
        outside = np.asarray(((actions < space.low - margin) | (actions > space.high + margin)).any(axis=1))
    if outside.any():
        mend = "kept as logged; if the environment clipped them, clip them in the data too"
        yield _rows("warning", logged, "actions", outside, "actions outside the action space", mend)


def _flags(logged: Logged, ends: Layout) -> Iterator[Finding]:
    """End flags: both at once, none at the end, and flags inside an episode."""
    both = logged.terminated & logged.truncated
    if both.any():
        yield _rows("warning", logged, "terminated", both, "both end flags", "terminated counts, nothing follows")
    if logged.starts is not None and logged.labels:
        inside = (logged.terminated | logged.truncated) & ~ends.end
        if inside.any():
            mend = "the episode goes on, as the source has it; a terminated row's value still ends there"
            yield _rows("warning", logged, "terminated", inside, "an end flag inside an episode", mend)
        open_end = ends.end & ~(logged.terminated | logged.truncated)
        if open_end.any():
            yield _rows(
                "warning", logged, "terminated", open_end, "an episode's end without a flag", "taken as truncated"
            )
        return
    if not logged.has_truncated and logged.next_observations is None:
        what = "marks no timeouts and holds no next_observations: cuts by time cannot be seen, and rows run across them"
        yield Finding("warning", logged.where, what, "pass env_id, whose time limit then shows the cuts")
    last = np.flatnonzero(logged.terminated | logged.truncated)
    after = len(logged) - 1 - (int(last[-1]) if len(last) else -1)
    if after and logged.starts is None:
        rest = np.zeros(len(logged), bool)
        rest[len(logged) - after :] = True
        yield _rows(
            "warning", logged, "terminated", rest, "rows after the last end flag", "the end is taken as truncated"
        )


def _chains(logged: Logged, ends: Layout) -> Iterator[Finding]:
    """Whether ``next_observations`` of a flat file agrees with the rows that follow."""
    if logged.next_observations is None or logged.names.get("next_observations") == "observations":
        return
    follows = np.zeros(len(logged), bool)
    follows[:-1] = ~ends.breaks[:-1]
    if logged.next_valid is not None:
        follows &= logged.next_valid
    if logged.starts is not None:
        jumps = ends.breaks & ~ends.end
        if jumps.any():
            mend = "kept as logged; such rows cannot be written in Minari's layout"
            yield _rows("warning", logged, "next_observations", jumps, "no chain to the next row's observation", mend)
        return
    unmarked = ends.breaks & ~logged.terminated & ~logged.truncated
    unmarked[-1] = False
    if unmarked.any():
        mend = "taken as the ends of truncated episodes"
        yield _rows("warning", logged, "next_observations", unmarked, "no chain to the next row, and no end flag", mend)
    early = logged.truncated & ~logged.terminated & follows
    if early.any():
        mend = "taken as ends, harmless for one-step targets; unmark them if the episode went on"
        yield _rows("warning", logged, "truncated", early, "a timeout mid-episode: the next row follows on", mend)
    shifted = logged.terminated & follows
    if shifted.any():
        mend = "it was probably made by shifting: delete next_observations, ends are then masked"
        what = "a terminal row with the next episode's first observation as its next observation"
        yield _rows("warning", logged, "next_observations", shifted, what, mend)


def _rounded(logged: Logged) -> Iterator[Finding]:
    """Dimensions that lose much when their numbers become float32."""
    mend = "learners compute in float32: log it less an offset (a clock from the episode's start on), or leave it out"
    for name, found in logged.rounded.items():
        for loss in found:
            yield Finding("warning", logged.name(name), str(loss), mend)


def _inferred(logged: Logged) -> Iterator[Finding]:
    """An action space that is no more than what was logged: a learner never sees the rest of the true one."""
    if not logged.action_space_inferred:
        return
    space = logged.action_space
    if isinstance(space, gym.spaces.Discrete):
        what = f"no action space is stated; {space.n} by the largest action, and one that was never logged is missing"
    else:
        assert space is not None
        ranges = ", ".join(f"{low:.4g} to {high:.4g}" for low, high in zip(space.low[:4], space.high[:4], strict=True))
        more = ", ..." if space.shape[0] > 4 else ""
        what = (
            f"no action space is stated; the range of the data is taken ({ranges}{more}), and the true one may be wider"
        )
    mend = "name the environment that the data came from (--env, or env=): it knows them all"
    yield Finding("warning", logged.name("actions"), what, mend)


def _constant(logged: Logged) -> Iterator[Finding]:
    """Dimensions that never change."""
    if len(logged) < 2:
        return
    if not logged.rewards.any() and not logged.rounded.get("rewards"):
        yield Finding("warning", logged.name("rewards"), "is 0 in every row", "nothing can be learned from it")
    for name, values in (("observations", logged.observations), ("actions", fit_actions(logged))):
        columns = values if values.ndim == 2 else values[:, None]
        rounded = {loss.dimension for loss in logged.rounded.get(name, ())}
        still = [d for d in np.flatnonzero((columns == columns[:1]).all(axis=0)).tolist() if d not in rounded]
        for dimension in still:
            what = f"dimension {dimension} is {columns[0, dimension]:g} in every row"
            yield Finding("warning", logged.name(name), what, "harmless, but no model can learn from it")


def _rows(severity: FindingSeverity, logged: Logged, name: str, mask: Array, what: str, mend: str) -> Finding:
    """A finding about the rows of a mask, with the first of them in the source's own words."""
    rows, count = numbered(np.flatnonzero(mask))
    places = ", ".join(logged.place(row) for row in rows[:3]) + (", ..." if count > 3 else "")
    text = f"{count:,} row{'s' if count > 1 else ''} with {what} ({places})"
    return Finding(severity, logged.name(name), text, mend, rows, count)
