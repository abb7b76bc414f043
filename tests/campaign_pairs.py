"""Pairs of commands in one folder at once: one whole result or one clear refusal, never a mixture of two."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from campaign_work import LIMIT, REPORTED, Work, emptied, finish, prepare
from command_server import Commands

BAD = ("mixture", "traceback", "stuck")
PAIRS = (
    ("train", "train"),
    ("train", "evaluate"),
    ("evaluate", "evaluate"),
    ("sweep", "sweep"),
    ("sweep", "same sweep"),
    ("collect", "collect"),
    ("report", "evaluate"),
)
_REFUSALS = (
    "writes there",
    "exists already",
    "holds a run",
    "not a run's folder",
    "is not finished",
    "holds a run with",
)


def run(
    count: int, seed: int, folder: Path, pairs: Sequence[tuple[str, str]] = PAIRS, processes: bool = True
) -> Mapping[str, int]:
    """Starts ``count`` pairs, each of different seeds, the second a random moment after the first, and counts outcomes.

    ``one``: the second was refused in one line and the first is whole, or the other way round. ``both``: they came one
    after the other, and what stands is all of one of them.
    """
    counts: Counter[str] = Counter(one=0, both=0, mixture=0, traceback=0, stuck=0)
    draw = random.Random(seed)
    with Commands(folder / "first.txt", processes) as first, Commands(folder / "second.txt", processes) as second:
        scene = _Scene(folder, first)
        for number in range(count):
            pair = pairs[number % len(pairs)]
            share = draw.random()
            outcome = scene.play(pair, share, second)
            counts[outcome.partition(":")[0]] += 1
            if outcome.partition(":")[0] in BAD:
                print(f"pair {number} (seed {seed}): {' and '.join(pair)}, {share:.3f} later: {outcome}", flush=True)
            if (number + 1) % 10 == 0:
                print(f"{number + 1} of {count}: {dict(counts)}", flush=True)
    return counts


class _Scene:
    """The folder, and what each command alone would make of it."""

    def __init__(self, folder: Path, commands: Commands) -> None:
        self.folder, self.commands = folder, commands
        self.kinds = prepare(folder, commands, (3, 4))
        self._alone: dict[tuple[str, int], Mapping[str, bytes]] = {}
        self._seconds: dict[str, float] = {}

    def play(self, pair: tuple[str, str], share: float, other: Commands) -> str:
        """Runs a pair; says how it ended."""
        works = [self._work(kind, seed, pair) for kind, seed in zip(pair, (3, 4), strict=True)]
        out = self._scene(pair)
        self.commands.start(works[0].arguments(out))
        time.sleep(share * self._seconds.get(pair[0], 1.0))
        other.start(works[1].arguments(out))
        statuses = [commands.wait(LIMIT) for commands in (self.commands, other)]
        said = [commands.said() for commands in (self.commands, other)]
        if None in statuses:
            return f"stuck: {statuses}"
        for status, text in zip(statuses, said, strict=True):
            refused = status == 2 and text.count("\n") == 1 and any(words in text for words in _REFUSALS)
            if status != 0 and not refused:
                return f"traceback: status {status}: {text[-300:]}"
        if statuses == [2, 2]:
            return f"stuck: both refused: {said}"
        found = works[0].contents(out)
        done = [place for place in (0, 1) if statuses[place] == 0]
        winners = [self._whole(pair[place], (3, 4)[place], pair) for place in done]
        if pair[0] == "sweep":  # runs of several sweeps may lie side by side: each must be whole
            runs = {name: text for whole in winners for name, text in whole.items() if name.startswith("runs/")}
            winners = [{**runs, **expected} for expected in winners]
        differing = min((_differing(found, expected) for expected in winners), key=len)
        if differing:
            return f"mixture: statuses {statuses}: {', '.join(differing)[:300]}"
        return "one" if 2 in statuses else "both"

    def _work(self, kind: str, seed: int, pair: tuple[str, str]) -> Work:
        if kind == "report":
            return Work(lambda out: ["report", str(out)])
        work = self.kinds["sweep"](3) if kind == "same sweep" else self.kinds[kind](seed)
        arguments = work.arguments
        if pair == ("train", "evaluate"):  # the run that is being trained
            here = (lambda out: ["evaluate", str(out), *arguments(out)[2:]]) if kind == "evaluate" else arguments
            return Work(here, REPORTED)
        if kind == "collect":
            return Work(lambda out: [text for text in arguments(out) if text != "--overwrite"])
        if pair == ("train", "train"):
            return Work(lambda out: [text for text in arguments(out) if text != "--resume"])
        return work

    def _scene(self, pair: tuple[str, str]) -> Path:
        """The folder as it is before the pair comes: empty, or with an evaluation to report on."""
        out = emptied(self.folder / "out")
        if "report" in pair:
            finish(self.commands, self.kinds["evaluate"](5).arguments(out))
        return out

    def _whole(self, kind: str, seed: int, pair: tuple[str, str]) -> Mapping[str, bytes]:
        """What a command makes where nobody else is."""
        key = (f"{kind} of {pair}", seed)
        if key not in self._alone:
            out = self._scene(pair)
            if pair == ("train", "evaluate") and kind == "evaluate":
                finish(self.commands, self._work("train", 3, pair).arguments(out))
            work = self._work(kind, seed, pair)
            begun = time.monotonic()
            finish(self.commands, work.arguments(out))
            self._seconds[kind] = time.monotonic() - begun
            self._alone[key] = work.contents(out)
        return self._alone[key]


def _differing(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
