"""Kills of commands at random moments: started again, each must end with the bytes it would have ended with."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from campaign_work import LIMIT, Work, emptied, finish, prepare
from command_server import Commands

BAD = ("unequal", "stuck")
KINDS = ("train", "evaluate", "sweep", "train", "collect", "evaluate", "compare", "train", "collect", "evaluate")
_SEED = 3
_AGAIN = 0.3
"""How often the second attempt is killed too."""


def run(count: int, seed: int, folder: Path, kinds: Sequence[str] = KINDS, processes: bool = True) -> Mapping[str, int]:
    """Kills ``count`` processes, with all they have started, and counts how their work ended.

    Four of five are killed as by ``kill -9``, the others by SIGTERM. A kill that comes too late counts as one that the
    work was equal after.
    """
    counts: Counter[str] = Counter(equal=0, unequal=0, stuck=0)
    draw = random.Random(seed)
    out = folder / "out"
    with Commands(folder / "log.txt", processes) as commands:
        work = {kind: make(_SEED) for kind, make in prepare(folder, commands, (_SEED,)).items()}
        whole: dict[str, tuple[float, Mapping[str, bytes]]] = {}
        for number in range(count):
            kind = kinds[number % len(kinds)]
            if kind not in whole:
                begun = time.monotonic()
                finish(commands, work[kind].arguments(emptied(out)))
                whole[kind] = time.monotonic() - begun, work[kind].contents(out)
            seconds, expected = whole[kind]
            moments = [draw.uniform(0.0, seconds)]
            if draw.random() < _AGAIN:
                moments.append(draw.uniform(0.0, seconds))
            how = signal.SIGKILL if draw.random() < 0.8 else signal.SIGTERM
            outcome = _outcome(commands, work[kind], emptied(out), moments, how, expected)
            counts[outcome.partition(":")[0]] += 1
            if outcome != "equal":
                moments = [round(moment, 3) for moment in moments]
                print(f"kill {number} (seed {seed}): {kind} by {how.name} after {moments} s: {outcome}", flush=True)
            if (number + 1) % 10 == 0:
                print(f"{number + 1} of {count}: {dict(counts)}", flush=True)
    return counts


def _outcome(
    commands: Commands,
    work: Work,
    out: Path,
    moments: Sequence[float],
    how: signal.Signals,
    expected: Mapping[str, bytes],
) -> str:
    for moment in moments:
        commands.start(work.arguments(out))
        if commands.wait(moment) is None:
            commands.kill(how)
            if commands.wait(LIMIT) is None:
                commands.kill(signal.SIGKILL)
                commands.wait(LIMIT)
                return f"stuck: not ended by {how.name}"
    commands.start(work.arguments(out))
    status = commands.wait(LIMIT)
    if status is None:
        commands.kill(signal.SIGKILL)
        commands.wait(LIMIT)
        return "stuck: started again it did not end"
    if status != 0:
        return f"stuck: started again it ended with status {status}: {commands.said()[-300:]}"
    found = work.contents(out)
    if found == expected:
        return "equal"
    differ = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"unequal: {', '.join(differ)[:300]}"
