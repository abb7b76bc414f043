"""Updates a second of d3rlpy's algorithms: in d3rlpy's own fit loop, and in ours through the bridge.

    python benchmarks/d3rlpy_bridge.py                    # TD3+BC, IQL, CQL, ReBRAC; batch 256, networks 256-256
    python benchmarks/d3rlpy_bridge.py --rounds 7 --updates 200 --json

Three variants of each algorithm take turns, in interleaved rounds of one process on one thread:

    d3rlpy fit     `fit` on the same transitions, without files, progress bar or evaluation
    ours           the loop of `offline-robust train`: minibatch, update through the bridge, means, a line of metrics
                   (into memory) every 100 updates
    update alone   d3rlpy's own update of prepared minibatches on the device, nothing else

The overhead of our loop is (ours - update alone) / update alone; it may be 5 %. A ratio is the median of the ratios
within a round. Seconds are processor time of the process, which others on the machine disturb little; wall time is
shown beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import structlog
import torch

from offline_robust.baselines import D3RLPyConfig, D3RLPyLearner, to_replay_buffer
from offline_robust.baselines.names import require_d3rlpy
from offline_robust.datasets import TransitionDataset, load_dataset
from offline_robust.datasets.feed import LoggedFeed
from offline_robust.experiments.train import _accumulate, _means, random_streams
from offline_robust.learners import Problem

Clocks = tuple[float, float]
ALGORITHMS = ("TD3PlusBC", "IQL", "CQL", "ReBRAC")


def clocked(work: Callable[[], object]) -> Clocks:
    """Wall and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


class Contest:
    """The variants of one algorithm, each with networks of its own."""

    def __init__(self, name: str, dataset: TransitionDataset, batch: int, updates: int) -> None:
        self.batch, self.updates = batch, updates
        self.ours, self.alone, self.theirs = (self._learner(name, dataset) for _ in range(3))
        self.buffer = to_replay_buffer(dataset, next_actions=name == "ReBRAC")
        self.theirs.algorithm.config.batch_size = batch
        self.lines: list[dict[str, float]] = []
        stream = self.alone.problem.streams["sampler"]
        self.feed = LoggedFeed(dataset)
        self.alone.prepare(self.feed)
        self.prepared = [self.alone.torch_batch(self.feed.sample(batch, stream)) for _ in range(50)]

    def _learner(self, name: str, dataset: TransitionDataset) -> D3RLPyLearner:
        problem = Problem.of(dataset, random_streams(0, torch.device("cpu")))
        return D3RLPyLearner(D3RLPyConfig(name=f"d3rlpy:{name}"), problem)

    def fit(self) -> None:
        """d3rlpy's own loop."""
        d3rlpy = require_d3rlpy("this benchmark")
        self.theirs.algorithm.fit(
            self.buffer,
            n_steps=self.updates,
            n_steps_per_epoch=self.updates,
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
            show_progress=False,
            save_interval=10**9,
        )

    def loop(self) -> None:
        """Ours."""
        sums: dict[str, Any] = {}
        stream = self.ours.problem.streams["sampler"]
        for step in range(1, self.updates + 1):
            _accumulate(sums, self.ours.update(self.feed.sample(self.batch, stream)))
            if step % 100 == 0 or step == self.updates:
                self.lines.append(_means(sums))

    def update(self) -> None:
        """No loop at all."""
        algorithm = self.alone.algorithm
        for step, batch in zip(range(self.updates), itertools.cycle(self.prepared), strict=False):
            algorithm.impl.update(batch, step)


def measure(name: str, dataset: TransitionDataset, batch: int, updates: int, rounds: int) -> dict[str, Any]:
    contest = Contest(name, dataset, batch, updates)
    variants = {"d3rlpy fit": contest.fit, "ours": contest.loop, "update alone": contest.update}
    clocks: dict[str, list[Clocks]] = {variant: [] for variant in variants}
    for number in range(rounds + 1):
        for variant, work in variants.items():
            found = clocked(work)
            if number:  # the first round warms up
                clocks[variant].append(found)

    def ratio(over: str, under: str, clock: int) -> float:
        return statistics.median(a[clock] / b[clock] for a, b in zip(clocks[over], clocks[under], strict=True))

    milliseconds = {
        variant: [1e3 * statistics.median(c[clock] for c in found) / updates for clock in (0, 1)]
        for variant, found in clocks.items()
    }
    return {
        "milliseconds an update (wall, processor)": milliseconds,
        "overhead of our loop": ratio("ours", "update alone", 1) - 1,
        "overhead of d3rlpy's loop": ratio("d3rlpy fit", "update alone", 1) - 1,
        "d3rlpy fit / ours": ratio("d3rlpy fit", "ours", 1),
        "d3rlpy fit / ours, wall": ratio("d3rlpy fit", "ours", 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--updates", type=int, default=100, help="of each variant in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # d3rlpy tells of each fit
    np.random.seed(0)  # noqa: NPY002 - d3rlpy draws its minibatches from it
    dataset = load_dataset("pendulum-td3")
    found: dict[str, dict[str, Any]] = {}
    if not options.json:
        print("processor milliseconds an update")
        heads = f"{'our overhead':>15}{'its overhead':>15}{'fit / ours':>13}"
        print(f"{'':12}{'d3rlpy fit':>12}{'ours':>9}{'alone':>9}{heads}")
    for name in options.algorithms:
        figures = found[name] = measure(name, dataset, options.batch, options.updates, options.rounds)
        if options.json:
            continue
        clocks = figures["milliseconds an update (wall, processor)"]
        times = "".join(f"{clocks[v][1]:>{w}.2f}" for v, w in (("d3rlpy fit", 12), ("ours", 9), ("update alone", 9)))
        ours, theirs = figures["overhead of our loop"], figures["overhead of d3rlpy's loop"]
        met = "" if ours <= 0.05 else "  missed: at most 5 %"
        print(f"{name:12}{times}{ours:>15.1%}{theirs:>15.1%}{figures['d3rlpy fit / ours']:>13.2f}{met}", flush=True)
    if options.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
