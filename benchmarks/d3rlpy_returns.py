"""Returns of d3rlpy's TD3+BC and IQL, trained natively by d3rlpy and through the bridge on the same transitions.

    python benchmarks/d3rlpy_returns.py                          # two seeds, 8,000 updates, Pendulum
    python benchmarks/d3rlpy_returns.py --steps 2000 --seeds 3 --json

Both sides have the same configuration (configs/d3rlpy/pendulum-*.yaml), as many updates, and the rows of one dataset.
Natively means d3rlpy's `fit`, drawing from NumPy's global stream, with its scalers fitted by d3rlpy; the networks
start from other draws, so that returns agree as those of two seeds do, not bit by bit. Every policy is evaluated by
our engine on the same start states. Intervals are 95 %: of a training over its start states; of the difference of
the two sides over start states (shared) and trainings.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from offline_robust.baselines import to_replay_buffer
from offline_robust.baselines.algorithms import space_scaler
from offline_robust.baselines.fields import build
from offline_robust.baselines.names import require_d3rlpy
from offline_robust.datasets import load_dataset
from offline_robust.evaluation import evaluate
from offline_robust.evaluation.statistics import bootstrap, interval
from offline_robust.experiments import load_config, train

CONFIGS = {"TD3PlusBC": "d3rlpy/pendulum-td3plusbc", "IQL": "d3rlpy/pendulum-iql"}
Returns = NDArray[np.float64]


def returns_of(policy: Any, episodes: int) -> Returns:
    """(E,) nominal returns; the same start states for every policy."""
    results = evaluate(policy, "Pendulum-v1", episodes=episodes, seed=0)
    return np.asarray(results.frame["return"], dtype=np.float64)


def bridged(name: str, steps: int, seed: int, episodes: int) -> Returns:
    with tempfile.TemporaryDirectory() as folder:
        # No episode is held out: the other side learns from all of them.
        values = {"training.steps": steps, "training.holdout": 0.0, "seed": seed}
        run = train(CONFIGS[name], values, out=Path(folder) / "run")
        return returns_of(run.policy, episodes)


def native(name: str, steps: int, seed: int, episodes: int) -> Returns:
    d3rlpy = require_d3rlpy("this benchmark")
    config = load_config(CONFIGS[name])
    dataset = load_dataset(config.dataset)
    # What our configuration does to rewards and actions, in d3rlpy's own terms.
    resolved = dict(config.learner.config)
    resolved["action_scaler"] = space_scaler(dataset.action_space)
    resolved["reward_scaler"] = {"type": "multiply", "params": {"multiplier": config.learner.reward_scale}}
    resolved["batch_size"] = config.training.batch_size
    d3rlpy.seed(seed)
    algorithm = build(getattr(d3rlpy.algos, f"{name}Config"), resolved).create(device="cpu")
    algorithm.fit(
        to_replay_buffer(dataset),
        n_steps=steps,
        n_steps_per_epoch=steps,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
        save_interval=10**9,
    )
    return returns_of(lambda observations: algorithm.predict(np.asarray(observations, np.float32)), episodes)


def difference(first: Returns, second: Returns) -> Returns:
    """(draws, 1): the mean over trainings and episodes of the first group less that of the second."""
    return (first.mean(axis=(1, 2, 3)) - second.mean(axis=(1, 2, 3)))[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # d3rlpy tells of each fit
    found: dict[str, Any] = {}
    for name in options.algorithms:
        sides: dict[str, Returns] = {}
        for side, work in (("native", native), ("bridge", bridged)):
            rows = []
            for seed in range(options.seeds):
                rows.append(work(name, options.steps, seed, options.episodes))
                spread = 1.96 * rows[-1].std(ddof=1) / np.sqrt(options.episodes)
                print(f"{name:10} {side}  seed {seed}: {rows[-1].mean():8.1f} ± {spread:.1f}", flush=True)
            sides[side] = np.stack(rows)[:, None, :]
        found[name] = compare(sides["bridge"], sides["native"])
        gap = found[name]["bridge - native"]
        print(f"{name:10} bridge - native: {gap['mean']:+.1f}  [{gap['low']:+.1f}, {gap['high']:+.1f}]", flush=True)
    if options.json:
        print(json.dumps(found, indent=2))


def compare(bridge: Returns, native: Returns) -> dict[str, Any]:
    """Means of the two sides (S, 1, E), and the interval of their difference."""
    low, high = interval(bootstrap([bridge, native], difference, np.random.default_rng(0)))
    return {
        "native": native.mean(axis=(1, 2)).tolist(),
        "bridge": bridge.mean(axis=(1, 2)).tolist(),
        "bridge - native": {"mean": float(bridge.mean() - native.mean()), "low": float(low[0]), "high": float(high[0])},
    }


if __name__ == "__main__":
    main()
