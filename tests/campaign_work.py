"""What campaigns stop, and start twice at once: small work of every kind, and what must come of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from command_server import Commands
from sweep_toys import base

SUITE = {"name": "lengths", "sweeps": [{"parameter": "length", "mode": "scale", "levels": [0.7, 1.0, 1.3]}]}
LIMIT = 300.0
"""Seconds after which work is stuck."""
_TOLD_APART = ("meta.json", "log.txt")
"""Files that say when and how fast: they differ between any two runs."""


@dataclass(frozen=True)
class Work:
    """A command, given again until it is done.

    Attributes:
        arguments: of the command that writes into a folder; the same ones go on where it was stopped.
        skip: names of files that tell of times.
    """

    arguments: Callable[[Path], Sequence[str]]
    skip: tuple[str, ...] = _TOLD_APART

    def contents(self, out: Path) -> dict[str, bytes]:
        """All that a folder holds, by name, without what tells of times; hidden files included."""
        files = [path for path in sorted(out.rglob("*")) if path.is_file() or path.name.startswith(".")]
        found = {}
        for path in files:
            if path.name not in self.skip:
                found[str(path.relative_to(out))] = b"" if path.is_dir() else _timeless(path)
        return found


def _timeless(path: Path) -> bytes:
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return json.dumps([{k: v for k, v in line.items() if not k.startswith("time")} for line in lines]).encode()
    if path.name == "results.meta.json":  # its hashes of the runs are of their times, too
        meta = json.loads(path.read_text())
        meta.get("page", {}).pop("digests", None)
        return json.dumps(meta).encode()
    return path.read_bytes()


REPORTED = (*_TOLD_APART, "report.html", "report.md", "costs.csv")
"""A report tells how long its runs took: these differ where the runs were trained anew."""


def prepare(folder: Path, commands: Commands, seeds: Sequence[int] = (3,)) -> dict[str, Callable[[int], Work]]:
    """Writes what the commands read into a folder, trains what is evaluated, and returns work by kind, for a seed."""
    (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    suite, episodes = str(folder / "suite.yaml"), ["--episodes", "2"]
    values = base(steps=200, log_every=10, checkpoint_every=20)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    for seed in seeds:
        content = {
            "base": base(steps=40),
            "grid": {"learner.tau": [0.005, 0.01]},
            "seeds": [seed],
            "evaluation": {"suite": suite, "episodes": 2},
        }
        (folder / f"sweep{seed}.yaml").write_text(yaml.safe_dump(content))
    train = ["train", str(folder / "config.yaml"), "--quiet"]
    run = folder / "run"
    finish(commands, [*train, "--out", str(run)])
    evaluate = ["evaluate", str(run), "--suite", suite, *episodes, "--quiet"]
    collect = ["data", "collect", "--policy", str(run), "--epsilon", "0.3", "--transitions", "40000", "--quiet"]
    compare = ["compare", "--dataset", "pendulum-td3", "--learners", "sac", "--steps", "60"]
    compare += ["--set", "training.log_every=10", "--set", "training.checkpoint_every=10", "--suite", suite, *episodes]
    return {
        "train": lambda seed: Work(lambda out: [*train, "--seed", str(seed), "--out", str(out), "--resume"]),
        "evaluate": lambda seed: Work(lambda out: [*evaluate, "--seed", str(seed), "--out", str(out)]),
        "collect": lambda seed: Work(lambda out: [*collect, "--seed", str(seed), "--out", str(out), "--overwrite"]),
        "sweep": lambda seed: Work(
            lambda out: ["sweep", str(folder / f"sweep{seed}.yaml"), "--out", str(out), "--jobs", "2", "--quiet"],
            REPORTED,
        ),
        "compare": lambda seed: Work(
            lambda out: [*compare, "--seeds", f"{seed},{seed + 10}", "--out", str(out), "--jobs", "2", "--quiet"],
            REPORTED,
        ),
    }


def finish(commands: Commands, arguments: Sequence[str]) -> None:
    """Runs a command that must succeed."""
    commands.start(arguments)
    status = commands.wait(LIMIT)
    assert status == 0, (status, commands.said()[-2000:])


def emptied(out: Path) -> Path:
    """The same path for everything, for paths are part of what is written; nothing is in it."""
    shutil.rmtree(out, ignore_errors=True)
    return out
