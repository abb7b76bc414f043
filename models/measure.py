"""Measures the behaviour policies: writes their cards, and what the score reference "ours" counts as 0 and 100.

    python models/measure.py                # every policy in models/*/policy.safetensors
    python models/measure.py pendulum-td3   # the environments of these; the others stay as they are

For each environment a uniformly random policy and every behaviour policy made for it run 100 episodes of the nominal
system, from the same start states. The returns go to configs/scores.yaml, and into card.md beside each policy (but for
one that has a training script, and a card, of its own).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import offline_robust as orl
from offline_robust.collection.cards import policy_card, read_curve
from offline_robust.evaluation.scores import read_scores
from offline_robust.files import write_text

EPISODES = 100
SEED = 1_000
HERE = Path(__file__).parent
TARGET = HERE.parent / "configs" / "scores.yaml"
HEADER = """\
# Measured by models/measure.py: what the score reference "ours" counts as 0 (random) and as 100 (the policy
# with the highest mean). Undiscounted returns of the nominal system; offline_robust/evaluation/scores.py has the form.
"""


def random_actions(policy: orl.Policy) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Uniformly random actions in the action space that a policy was made for."""
    rng, spec = np.random.default_rng(SEED), policy.spec
    low, high = np.array(spec.action_low), np.array(spec.action_high)

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        if spec.action_count:
            return rng.integers(spec.action_count, size=len(observations))
        return rng.uniform(low, high, (len(observations), len(low)))

    return act


def measure(policy: Any, env_id: str) -> tuple[NDArray[np.float64], dict[str, Any], dict[str, str]]:
    """The returns, their summary and the versions they were measured with."""
    results = orl.evaluate(policy, env_id, episodes=EPISODES, seed=SEED)
    returns: NDArray[np.float64] = results.frame["return"].to_numpy()
    figures = {"mean": round(float(returns.mean()), 4), "std": round(float(returns.std(ddof=1)), 4)}
    return returns, {**figures, "episodes": EPISODES, "seed": SEED}, results.meta["versions"]


def command(name: str, steps: float) -> str:
    """What makes a policy."""
    if name.endswith("-medium"):
        return f"python models/train.py --promote {name.removesuffix('-medium')} {steps:.0f} {name}"
    return f"python models/{'ppo' if name.endswith('-ppo') else 'train'}.py {name}"


def write_card(name: str, policy: orl.Policy, returns: NDArray[np.float64]) -> None:
    folder = HERE / name
    if not (folder / "train.py").exists():
        curve = read_curve(folder / "learning_curve.json")
        write_text(folder / "card.md", policy_card(name, command(name, curve[-1]["step"]), policy, curve, returns))


def main() -> None:
    found = {path.parent.name: orl.load_policy(path) for path in sorted(HERE.glob("*/policy.safetensors"))}
    unknown = [name for name in sys.argv[1:] if name not in found]
    if unknown:
        sys.exit(f"no policy {unknown[0]!r}; there are {', '.join(found)}")
    by_env: dict[str, list[str]] = {}
    for name, policy in found.items():
        by_env.setdefault(str(policy.spec.env_id), []).append(name)
    chosen = {str(found[name].spec.env_id) for name in sys.argv[1:] or found}
    kept = read_scores(TARGET) if TARGET.exists() else {}
    for env_id in sorted(chosen):
        names = by_env[env_id]
        _, random, versions = measure(random_actions(found[names[0]]), env_id)
        policies = {}
        for name in names:
            returns, policies[name], _ = measure(found[name], env_id)
            write_card(name, found[name], returns)
        print(env_id, "random", random["mean"], {name: own["mean"] for name, own in policies.items()}, flush=True)
        kept[env_id] = {
            "random": random,
            "policies": policies,
            "versions": versions,
            "command": " ".join(["python models/measure.py", *sys.argv[1:]]),
        }
    content = yaml.safe_dump({"environments": dict(sorted(kept.items()))}, sort_keys=False, width=110)
    write_text(TARGET, HEADER + content)


if __name__ == "__main__":
    main()
