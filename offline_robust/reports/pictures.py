"""The figures of a report with their captions, the numbers behind them and the command that makes them again."""

from __future__ import annotations

from matplotlib.figure import Figure

from offline_robust.reports.blocks import Picture
from offline_robust.reports.curves import metric_data, metric_figure, profile_figure
from offline_robust.reports.figures import (
    difference_data,
    difference_figure,
    heat_data,
    heat_figure,
    level_data,
    level_figure,
)
from offline_robust.reports.parts import ReportPart
from offline_robust.reports.text import clean

_LEVELS = "Mean return at each level with its 95 % band; the dashed line is the nominal system."
_DIFFERENCE = (
    "Mean return of the first learner minus that of each other one, with 95 % bands. All learners start in the same "
    "states, which moves their curves together: bands that overlap above may still differ here."
)
_GRID = "Mean return at each pair of levels. Bold levels are nominal, and the frame marks the nominal system."
_PROFILE = (
    "Performance profile: the share of trainings × conditions whose mean return exceeds τ, with pointwise 95 % bands. "
    "A curve that lies above another is better at every τ; its left end tells of the worst conditions."
)
_TRAINING = (
    (("train/",), "Learning curves", "train", "Training metrics"),
    (("dual/",), "Dual variables", "dual", "The dual variables of the robust objective"),
    (("model/",), "Nominal model", "model", "Losses while the nominal model was fitted"),
)


def return_pictures(part: ReportPart, command: str) -> list[Picture]:
    """Returns against level, their differences, heat maps; those that the conditions allow."""
    known = part.known
    thin = any(len(cube.trainings) > 1 for cube in known.cubes.values()) and len(known.cubes) <= 4
    levels = _LEVELS + (" Thin lines are single trainings." if thin else "")
    found = []
    for draw, data, title, key, caption in (
        (level_figure, level_data, "Return against level", "levels", levels),
        (difference_figure, difference_data, "Difference against level", "difference", _DIFFERENCE),
        (heat_figure, heat_data, "Mean return over the grid", "grid", _GRID),
    ):
        figure = draw(known)
        if figure is not None:
            # On a small screen panels lie under each other, and a long legend needs more rows.
            narrow: Figure | None = draw(known, narrow=True)
            key = file_key(part, key)
            found.append(Picture(key, title, caption, figure, data(known), narrow, command=command))
    return found


def profile_picture(part: ReportPart, command: str) -> Picture:
    """The performance profile of every learner."""
    known = part.known
    figure, narrow = profile_figure(known), profile_figure(known, narrow=True)
    key = file_key(part, "profile")
    return Picture(key, "Performance profile", _PROFILE, figure, known.profiles, narrow, command=command)


def training_pictures(part: ReportPart) -> list[Picture]:
    """Learning curves, dual variables and the nominal model's losses, where the runs have them."""
    commands = list(dict.fromkeys(str(record.meta.get("command", "")) for record in part.records))
    commands = [clean(line, 300) for line in commands if line.strip()]
    more = f" (and {len(commands) - 1} like it)" if len(commands) > 1 else ""
    found = []
    for prefixes, title, key, what in _TRAINING:
        figure = metric_figure(part.records, part.known.learners, prefixes)
        if figure is not None:
            caption = f"{what}: the mean over a learner's runs, and the range they span."
            narrow = metric_figure(part.records, part.known.learners, prefixes, narrow=True)
            data = metric_data(part.records, prefixes)
            command = commands[0] + more if commands else ""
            found.append(Picture(file_key(part, key), title, caption, figure, data, narrow, True, command))
    return found


def file_key(part: ReportPart, key: str) -> str:
    """Names a part's picture: unique in the report, and in its folder of figures."""
    return f"{part.key}-{key}" if part.key else key
