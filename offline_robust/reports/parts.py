"""Splitting results over several environments or datasets into parts that can be compared inside themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from offline_robust.evaluation.results import Results
from offline_robust.reports.analysis import Analysis
from offline_robust.reports.records import RunRecord
from offline_robust.reports.trained_on import data_names, data_of


@dataclass(frozen=True)
class ReportPart:
    """One environment, and one dataset where learners were trained on several.

    Attributes:
        name: what it is called.
        key: for anchors and files; "" where there is one part only.
        env_id: the environment.
        known: its statistics.
        records: its runs.
    """

    name: str
    key: str
    env_id: str
    known: Analysis
    records: tuple[RunRecord, ...]


def split(
    results: Results, records: Sequence[RunRecord], datasets: Mapping[str, str] | None = None
) -> list[ReportPart]:
    """The parts of a table, in order of appearance.

    Returns of different environments have nothing in common, and learners are told apart on one dataset only. Datasets
    make parts where a learner of that name was trained on several in one environment; where labels differ by dataset
    anyway, one table has them all.

    Args:
        results: in one or several environments.
        records: the runs behind them; a record's label becomes the one that the table uses for its run.
        datasets: the dataset of each run; by default what ``results.meta["datasets"]`` and the records say.
    """
    frame = results.frame
    labels = dict(zip(frame["run"], frame["learner"], strict=True))
    named = [replace(record, learner=str(labels.get(record.name, record.learner))) for record in records]
    of = _datasets(results, named) | dict(datasets or {})
    runs = frame[["run", "learner", "env_id"]].drop_duplicates()
    dataset = runs["run"].map(lambda run: of.get(str(run), ""))
    trained_on: dict[tuple[str, str], set[str]] = {}
    for env, learner, name in zip(runs["env_id"], runs["learner"], dataset, strict=True):
        trained_on.setdefault((env, learner), set()).update({name} - {""})
    several = {env for (env, _), names in trained_on.items() if len(names) > 1}
    keys = [(str(env), name if env in several else "") for env, name in zip(runs["env_id"], dataset, strict=True)]
    place = dict(zip(zip(runs["run"], runs["env_id"], strict=True), keys, strict=True))
    order = list(dict.fromkeys(keys))
    if len(order) == 1:
        return [ReportPart(order[0][0], "", order[0][0], Analysis(results), tuple(named))]
    at = [place[pair] for pair in zip(frame["run"], frame["env_id"], strict=True)]
    learners = tuple(results.learners)
    found = []
    for number, key in enumerate(order, start=1):
        env_id, name = key
        own = Results(frame[[other == key for other in at]].reset_index(drop=True), _meta(results, env_id))
        members = set(own.frame["run"])
        kept = tuple(record for record in named if record.name in members)
        only = {of.get(str(run), "") for run in members} - {""}
        title = f"{env_id} · {name or next(iter(only))}" if name or len(only) == 1 else env_id
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50]
        found.append(ReportPart(title, f"{number}-{slug}", env_id, Analysis(own, learners), kept))
    return found


def _datasets(results: Results, records: Sequence[RunRecord]) -> dict[str, str]:
    """The dataset of each run by name; what records tell of fingerprints decides which are the same."""
    given = results.meta.get("datasets")
    known = {str(run): str(name) for run, name in given.items()} if isinstance(given, dict) else {}
    told = {record.name: data_of(record.meta) for record in records}
    told = {run: data for run, data in told.items() if data[0]}
    data = list(told.values())
    names = dict(zip(told, data_names(data), strict=True))
    trainings = results.frame[["run", "learner", "env_id", "training_seed"]].drop_duplicates()
    trainings = trainings.assign(data=trainings["run"].map(names))[trainings["run"].isin(names)]
    if trainings.drop(columns="run").duplicated().any():  # one seed on the same data counts once
        names = dict(zip(told, data_names(data, pool=False), strict=True))
    return known | names


def _meta(results: Results, env_id: str) -> dict[str, object]:
    """What the meta data say of one environment."""
    listed = results.meta.get("parts")
    own = [part for part in listed if isinstance(part, dict) and part.get("env_id") == env_id] if listed else []
    if not own:
        return dict(results.meta)
    common = {key: value for key, value in own[0].items() if all(part.get(key) == value for part in own)}
    return {**results.meta, **common, "parts": own}
