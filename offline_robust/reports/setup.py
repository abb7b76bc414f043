"""The report's sections on the nominal model and on how everything was set up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from offline_robust.evaluation.results import Results
from offline_robust.reports.blocks import Block, Box, Code, Folded, Heading, Para, Sheet, SheetCell
from offline_robust.reports.records import RunRecord, numbers
from offline_robust.reports.text import clean, number

_MOST_BROKEN = 20


def model_section(records: Sequence[RunRecord]) -> list[Block]:
    """Diagnostics of every run's nominal model: error and spread per dimension, calibration, warnings; none without."""
    modelled = [(record, record.model) for record in records if record.model]
    if not modelled:
        return []
    warnings: dict[str, list[str]] = {}
    shown: set[str] = set()
    parts: list[Block] = []
    for record, model in modelled:
        given = model.get("warnings")
        for text in given[:20] if isinstance(given, list) else []:
            warnings.setdefault(str(text), []).append(record.name)
        # The first run of a learner stands open, its other trainings are folded away.
        parts += _model(record, model, folded=record.learner in shown)
        shown.add(record.learner)
    box = Box("caution", [f"{_names(names)}: {text}" for text, names in warnings.items()])
    note = (
        "RMSE is the held-out error of the predicted next observation. Spread is the standard deviation of the model's "
        "own samples; a ball of laws around a model without spread contains only that model, and the learner is then "
        "robust in name only. Both are also given in units of the one-step change, the standard deviation of the next "
        "observation minus the present one in the data."
    )
    return [Heading("Nominal model"), Para(note, "note"), *([box] if warnings else []), *parts]


def setup_section(results: Results, records: Sequence[RunRecord]) -> list[Block]:
    """Runs, evaluation settings, software versions, configurations."""
    parts: list[Block] = [Heading("Set-up")]
    if records:
        heads = ["Run", "Learner", "Seed", "Dataset", "Fingerprint", "Transitions", "Episodes", "Minutes", "Updates/s"]
        parts.append(Sheet(heads, [_run_row(record) for record in records]))
    notes: dict[str, list[str]] = {}
    for record in records:
        for note in record.notes:
            notes.setdefault(note, []).append(record.name)
    if notes:
        parts.append(Box("caution", [f"{_names(names)}: {note}" for note, names in notes.items()]))
    hardware = {json.dumps(_object(r.meta.get("hardware")), sort_keys=True, default=str): r for r in records}
    git = {json.dumps(_object(r.meta.get("git")), sort_keys=True, default=str): r for r in records}
    rows = _evaluation(results) + _trained_with(results, records)
    rows += [_fact("Hardware", _object(record.meta.get("hardware"))) for record in hardware.values()]
    rows += [_fact("Git", _object(record.meta.get("git"))) for record in git.values()]
    kept = [row for row in rows if row[1]]
    if kept:
        parts.append(Sheet([], kept, kind="words"))
    configs: dict[str, list[str]] = {}
    for record in records:
        if record.config.strip():
            configs.setdefault(record.config, []).append(record.name)
    for text, names in configs.items():
        parts.append(Folded(f"Configuration of {clean(_names(names), 200)}", [Code(text)]))
    return parts


def _evaluation(results: Results) -> list[list[str]]:
    """What was run on what: environment, suite, protocol, versions; more than one row of what the parts differ in."""
    parts = [part for part in results.meta.get("parts", []) if isinstance(part, dict)] or [results.meta]

    def rows(name: str, of: Callable[[dict[str, Any]], dict[str, Any]]) -> list[list[str]]:
        kept = [{k: v for k, v in of(part).items() if v not in (None, "", {})} for part in parts]
        distinct = {json.dumps(fact, sort_keys=True, default=str): fact for fact in kept if fact}
        return [_fact(name, fact) for fact in distinct.values()]

    def chosen(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda part: {key: part.get(key) for key in keys}

    found = rows("Environment", _environment_of)
    found += rows("Suite", chosen("suite", "conditions", "suite_source"))
    found += rows("Episodes", chosen("episodes", "seed"))
    if any(part.get("checkpoint") for part in parts):
        names = ", ".join(sorted({clean(part.get("checkpoint", "unknown"), 60) for part in parts}))
        found.append(["Checkpoint rule", f"{names}, fixed before evaluation; {_policies(parts)} policy"])
    broken = _broken(parts)
    if broken:
        found.append(["Broken simulations", broken])
    versions = rows("Evaluated with", lambda part: _object(part.get("versions")))
    if len(versions) > 1:
        versions.append(["Caution", "Not everything was evaluated with the same versions."])
    return found + versions


def _environment_of(part: dict[str, Any]) -> dict[str, Any]:
    """What a part was evaluated in: its description where there is one, else what older tables say."""
    known = part.get("environment")
    if isinstance(known, dict):
        kept = {key: known.get(key) for key in ("id", "kwargs", "step_limit", "wrappers", "imports")}
        return kept | {"max_steps": part.get("max_steps")}
    return {key: part.get(key) for key in ("env_id", "env_kwargs", "max_steps")}


def _broken(parts: Sequence[dict[str, Any]]) -> str:
    """Under which conditions the simulation became unstable in how many episodes; empty where it never did."""
    counts: dict[str, int] = {}
    for part in parts:
        for condition, count in _object(part.get("broken")).items():
            if isinstance(count, int) and count > 0:
                counts[str(condition)] = counts.get(str(condition), 0) + count
    told = [f"{clean(name, 60)}: {count:,} episodes" for name, count in list(counts.items())[:_MOST_BROKEN]]
    more = f" and {len(counts) - len(told)} more conditions" if len(counts) > len(told) else ""
    return (
        f"{'; '.join(told)}{more}. The physics are too stiff for the time step there; mind these returns."
        if told
        else ""
    )


def _trained_with(results: Results, records: Sequence[RunRecord]) -> list[list[str]]:
    """The versions the runs were trained with, where they are not those of the evaluation."""
    evaluated = _object(results.meta.get("versions"))
    found = {}
    for record in records:
        own = {k: v for k, v in _object(record.meta.get("versions")).items() if v is not None and evaluated.get(k) != v}
        if own:
            found[json.dumps(own, sort_keys=True, default=str)] = own
    return [_fact("Trained with", own) for own in found.values()]


def _policies(parts: Sequence[dict[str, Any]]) -> str:
    return " and ".join(sorted({clean(part.get("policy", "unknown"), 60) for part in parts}))


def _model(record: RunRecord, model: Mapping[str, Any], folded: bool) -> list[Block]:
    columns = {key: numbers(model.get(key)) for key in ("rmse", "step_std", "relative_error", "spread")}
    given = model.get("names")
    names = [clean(name, 60) for name in given] if isinstance(given, list) else []
    rows: list[list[SheetCell | str]] = []
    for k in range(max([len(names), *(len(values) for values in columns.values())])):
        found = [values[k] if k < len(values) else float("nan") for values in columns.values()]
        name = names[k] if k < len(names) else f"dimension {k}"
        rows.append([name, *(number(value) for value in found)])
    heads = ["Observation", "RMSE", "One-step std", "RMSE / one-step std", "Spread / one-step std"]
    parts: list[Block] = []
    if rows:
        parts.append(Sheet(heads, rows))
    facts: list[list[SheetCell | str]] = []
    coverage = _object(model.get("coverage"))
    pairs = list(zip(numbers(coverage.get("nominal")), numbers(coverage.get("observed")), strict=False))
    if pairs:
        text = ", ".join(f"{100 * stated:.0f} % interval holds {100 * seen:.0f} %" for stated, seen in pairs)
        facts.append(["Calibration", clean(text, 500)])
    for key, label in (("radius", "Radius"), ("robust_gap", "Mean value minus worst-case value")):
        value = numbers(model.get(key))
        if value:
            facts.append([label, number(value[0])])
    if facts:
        parts.append(Sheet([], facts, kind="words"))
    if folded:
        return [Folded(clean(record.name), parts)]
    return [Heading(clean(record.name), 3), *parts]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _run_row(record: RunRecord) -> list[SheetCell | str]:
    meta, data = record.meta, _object(record.meta.get("dataset"))

    def count(value: Any, form: str) -> str:
        values = numbers(value)
        return format(values[0], form) if values and values[0] == values[0] else "–"

    return [
        clean(record.name, 80),
        clean(record.learner or "–", 60),
        clean(meta.get("seed", "–"), 20),
        clean(data.get("name", "–"), 60),
        SheetCell(clean(data.get("fingerprint", "–"), 20), code=True),
        count(data.get("transitions"), ",.0f"),
        count(data.get("episodes"), ",.0f"),
        count(meta.get("training_minutes"), ".1f"),
        count(meta.get("updates_per_s"), ",.0f"),
    ]


def _fact(name: str, values: Mapping[str, Any]) -> list[str]:
    text = ", ".join(f"{str(key).replace('_', ' ')} {value}" for key, value in values.items())
    return [name, clean(text, 2_000)]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
