"""Every statistic that a report shows, each made once, however many tables, figures and sentences use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from offline_robust.evaluation import ranking, summary
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.summary import Cube


@dataclass(frozen=True, eq=False)
class Analysis:
    """The statistics of results in one environment, made when first asked for.

    Attributes:
        results: one or several learners in one environment.
        order: learners of the whole report; a learner keeps its colour where it is not the first.
    """

    results: Results
    order: tuple[str, ...] = ()
    _differences: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, results: Results | Analysis) -> Analysis:
        """The analysis of results, or what is one already."""
        return results if isinstance(results, Analysis) else cls(results)

    @cached_property
    def learners(self) -> list[str]:
        """Labels in order of first appearance."""
        return self.results.learners

    @cached_property
    def cubes(self) -> dict[str, Cube]:
        """See `evaluation.summary.cubes`."""
        return summary.cubes(self.results)

    @property
    def first(self) -> Cube:
        """The cube of the first learner."""
        return next(iter(self.cubes.values()))

    @cached_property
    def perturbed(self) -> bool:
        """Whether anything was perturbed: the nominal system alone shows no robustness, and nothing may say so."""
        return not bool(self.first.conditions["nominal"].all())

    @cached_property
    def summary(self) -> pd.DataFrame:
        """See `evaluation.summary.summarise`."""
        return summary.summarise(self.results)

    @cached_property
    def means(self) -> pd.DataFrame:
        """See `evaluation.summary.per_condition`."""
        return summary.per_condition(self.results)

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """See `evaluation.summary.per_parameter`."""
        return summary.per_parameter(self.results)

    @cached_property
    def severity(self) -> pd.DataFrame:
        """See `evaluation.summary.by_severity`."""
        return summary.by_severity(self.results)

    @cached_property
    def resampled(self) -> ranking.Resampled:
        """See `evaluation.ranking.Resampled`."""
        return ranking.Resampled.of(self.results)

    @cached_property
    def leaders(self) -> pd.DataFrame:
        """See `evaluation.ranking.leaders`."""
        return ranking.leaders(self.resampled)

    @cached_property
    def iqms(self) -> pd.DataFrame:
        """See `evaluation.ranking.iqms`."""
        return ranking.iqms(self.resampled)

    @cached_property
    def profiles(self) -> pd.DataFrame:
        """See `evaluation.ranking.profiles`."""
        return ranking.profiles(self.resampled)

    @cached_property
    def improvement(self) -> pd.DataFrame:
        """See `evaluation.ranking.improvement`."""
        return ranking.improvement(self.resampled)

    def compare(self, a: str, b: str) -> pd.DataFrame:
        """See `evaluation.summary.compare`."""
        if (a, b) not in self._differences:
            self._differences[a, b] = summary.compare(self.results, a, b)
        return self._differences[a, b]

    def place(self, learner: str) -> int:
        """The learner's place in the report, from which its colour and marker follow."""
        order = self.order or tuple(self.learners)
        return order.index(learner) if learner in order else len(order)
