"""Hashes of what short trainings end in, to hold two versions against each other on one machine.

    python tests/golden.py --write golden.json      # with the version before
    python tests/golden.py --check golden.json      # with the version after: status 1 where anything differs

A policy is hashed as its file, a checkpoint as the bytes of its tensors whatever their names. Floating point differs
from processor to processor, so a file of hashes is of one machine and is not kept in the tree.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

STEPS, MODEL_STEPS = 200, 50

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sac": ("sac/pendulum", {}),
    "sac hopper": ("sac/hopper", {}),
    "dr_sac exact": ("dr_sac/pendulum", {"learner.dual": "exact"}),
    "dr_sac functional": ("dr_sac/pendulum-paper", {"learner.dual": "functional"}),
    "dr_sac chi2": ("dr_sac/pendulum-chi2", {}),
    "dr_sac chi2 functional": ("dr_sac/pendulum-chi2", {"learner.dual": "functional"}),
    "dr_sac data chi2": ("dr_sac/pendulum-data-chi2", {}),
    "dr_sac data kl": ("dr_sac/pendulum-data-chi2", {"learner.divergence": None, "learner.delta": 0.5}),
    "dr_sac data tv": (
        "dr_sac/pendulum-data-chi2",
        {"learner.divergence": {"name": "tv", "radius": 0.3, "v_min": -5.0}, "learner.reward_shift": 0.0},
    ),
    "dr_sac data contamination": (
        "dr_sac/pendulum-data-chi2",
        {"learner.divergence": {"name": "contamination", "radius": 0.3, "v_min": -5.0}},
    ),
    "dr_sac wasserstein_gradient": (
        "dr_sac/pendulum",
        {"learner.delta": None, "learner.divergence": {"name": "wasserstein_gradient", "radius": 0.1}},
    ),
    "dr_sac data wasserstein_gradient": (
        "dr_sac/pendulum-data-chi2",
        {"learner.divergence": {"name": "wasserstein_gradient", "radius": 0.1}},
    ),
    "fqi": ("fqi/pendulum", {}),
    "fqi ac": ("fqi/pendulum", {"learner.backup": "ac", "learner.density_filter": False, "training.model_steps": 0}),
    "fqi discrete": ("fqi/cartpole-discrete", {}),
    "rfqi": ("rfqi/pendulum", {}),
    "rfqi batch_quantile": ("rfqi/pendulum", {"learner.eta_mode": "batch_quantile"}),
    "rfqi discrete": ("rfqi/cartpole-discrete", {}),
    "d3rlpy td3plusbc": ("d3rlpy/pendulum-td3plusbc", {}),
    "d3rlpy rebrac": ("d3rlpy/pendulum-rebrac", {}),
}


def hashes(folder: Path) -> dict[str, dict[str, str]]:
    """Name of a case to hashes of its policy and of its last checkpoint, or to why it has none."""
    import offline_robust as orl
    from offline_robust.errors import UserError

    found = {}
    for name, (config, overrides) in CASES.items():
        sizes: dict[str, Any] = {"training.steps": STEPS, "training.checkpoint_every": 100, "training.log_every": 50}
        try:
            values = overrides | sizes
            if has_phases_before(config, overrides):
                values["training.model_steps"] = MODEL_STEPS
            run = orl.train(config, values, out=folder / name.replace(" ", "-"))
        except UserError as error:
            found[name] = {"refused": str(error)}
            continue
        policy = (run.folder / "policy.safetensors").read_bytes()
        found[name] = {"policy": hashlib.sha256(policy).hexdigest(), "checkpoint": tensors_hash(run.checkpoint)}
        print(f"{name}: policy {found[name]['policy'][:12]}, checkpoint {found[name]['checkpoint'][:12]}", flush=True)
    return found


def has_phases_before(config: str, overrides: dict[str, Any]) -> bool:
    """Whether the bundled configuration trains something before the policy."""
    from offline_robust.experiments.config import load_config

    return "training.model_steps" not in overrides and load_config(config, overrides).training.model_steps > 0


def tensors_hash(path: Path) -> str:
    """Of the tensors of a safetensors file, in no order and under no names."""
    with safe_open(path, "pt") as file:
        each = sorted(
            hashlib.sha256(str((t.dtype, tuple(t.shape))).encode() + t.numpy().tobytes()).hexdigest()
            for t in (file.get_tensor(name) for name in file.keys())  # noqa: SIM118 - not a dict
        )
    return hashlib.sha256("".join(each).encode()).hexdigest()


def main() -> int:
    """Writes or checks a file of hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", type=Path, metavar="FILE", help="where hashes go")
    group.add_argument("--check", type=Path, metavar="FILE", help="hashes to compare with")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        found = hashes(Path(folder))
    if asked.write is not None:
        asked.write.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before = json.loads(asked.check.read_text())
    differing = [name for name in before | found if before.get(name) != found.get(name)]
    for name in differing:
        print(f"DIFFERS {name}: {before.get(name)} before, {found.get(name)} now")
    print(f"{len(before) - len(differing)} of {len(before)} equal")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
