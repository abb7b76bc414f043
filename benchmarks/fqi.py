"""Updates a second of FQI and RFQI, side by side: same networks, batch 1,000, 10 candidate actions a next observation.

    python benchmarks/fqi.py                          # the papers' sizes on the bundled Pendulum data
    python benchmarks/fqi.py --rounds 9 --threads 2 --json

All variants run in one process, in interleaved rounds, on the same minibatches. A ratio is the median of the ratios
within a round, of processor time: other processes on the machine disturb it little. The aim is RFQI / FQI at most 3;
RFQI's released code takes up to 10,000 steps of a new dual network in each update: 2.8 to 8.1 seconds an update in
DR-SAC's logs, beside 50 to 106 milliseconds of FQI (GTX 1080 Ti; not measured here).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch

from offline_robust.datasets import Batch, load_dataset
from offline_robust.experiments.train import random_streams
from offline_robust.learners import FQI, RFQI, FQIConfig, Problem, RFQIConfig
from offline_robust.learners.batch_constrained import BatchConstrainedConfig
from offline_robust.learners.fitted_q import FittedQ

AIM = 3.0


def made(kind: type[FittedQ], config: BatchConstrainedConfig, dataset: Any) -> FittedQ:
    return kind(config, Problem.of(dataset, random_streams(0, dataset.device)))


def seconds(learner: FittedQ, batches: list[Batch]) -> tuple[float, float]:
    """Wall and processor seconds an update."""
    wall, processor = time.perf_counter(), time.process_time()
    for batch in batches:
        learner.update(batch)
    return (time.perf_counter() - wall) / len(batches), (time.process_time() - processor) / len(batches)


def measure(rounds: int, updates: int, batch_size: int, hidden: tuple[int, ...] | None) -> dict[str, Any]:
    dataset = load_dataset("pendulum-td3")
    sizes: dict[str, Any] = {} if hidden is None else {"hidden": hidden, "vae_hidden": hidden}
    own: dict[str, Any] = {} if hidden is None else {"density_hidden": hidden}
    shift = {"reward_shift": 16.3}
    learners = {
        "FQI, ql backup": made(FQI, FQIConfig(**sizes, **own), dataset),
        "FQI, ac backup": made(FQI, FQIConfig(backup="ac", **sizes, **own), dataset),
        "FQI, float32": made(FQI, FQIConfig(sampling_precision="float32", **sizes, **own), dataset),
        "RFQI, 5 dual steps": made(RFQI, RFQIConfig(dual_steps=5, **shift, **sizes), dataset),
        "RFQI, 20 dual steps": made(RFQI, RFQIConfig(dual_steps=20, **shift, **sizes), dataset),
        "RFQI, batch quantile": made(RFQI, RFQIConfig(eta_mode="batch_quantile", **shift, **sizes), dataset),
    }
    stream = torch.Generator().manual_seed(0)
    walls: dict[str, list[float]] = {name: [] for name in learners}
    processors: dict[str, list[float]] = {name: [] for name in learners}
    for turn in range(rounds + 1):
        batches = [dataset.sample(batch_size, stream) for _ in range(updates)]
        for name, learner in learners.items():
            wall, processor = seconds(learner, batches)
            if turn:  # the first round warms up
                walls[name].append(wall)
                processors[name].append(processor)

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(processors[a], processors[b], strict=True))

    return {
        "updates a second": {name: 1.0 / statistics.median(times) for name, times in walls.items()},
        "processor milliseconds": {name: 1e3 * statistics.median(times) for name, times in processors.items()},
        "ratios": {
            f"RFQI, 5 steps / FQI, ql backup (at most {AIM:g})": ratio("RFQI, 5 dual steps", "FQI, ql backup"),
            f"RFQI, 20 steps / FQI, ql backup (at most {AIM:g})": ratio("RFQI, 20 dual steps", "FQI, ql backup"),
            "RFQI, 5 steps / FQI, ac backup": ratio("RFQI, 5 dual steps", "FQI, ac backup"),
            "float32 / auto precision, FQI": ratio("FQI, float32", "FQI, ql backup"),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=3, help="a round")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--hidden", type=int, nargs="+", help="of all networks, in place of 400-300 and 750-750")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = measure(chosen.rounds, chosen.updates, chosen.batch, tuple(chosen.hidden) if chosen.hidden else None)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    for heading, figures in found.items():
        print(heading)
        for name, value in figures.items():
            print(f"  {name:<48} {value:8.2f}")


if __name__ == "__main__":
    main()
