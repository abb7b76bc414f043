"""Fuzz of every kind of input that the library reads, counted by what came of each.

    python tests/campaign_fuzz.py --inputs 2000

Inputs are spoilt from fixed seeds and used in child processes with a memory limit and a time limit. What may come of
one: it is refused in one line, or accepted. What may not: a traceback (or a dead process), a hang, more than 2 GB,
something half-written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

MEMORY = 2 * 2**30
"""Bytes that one input may take beyond what the process has before it."""
SECONDS = 30.0
"""Time for one input."""
GOOD = ("one line", "accepted")
BAD = ("traceback", "hang", "over 2 GB", "half-written")
_BEGIN = 180.0  # imports, and the sound examples


def run(count: int, seed: int, folder: Path) -> Mapping[str, int]:
    """Uses so many spoilt inputs, evenly over the kinds; prints a line for each that came to a bad end.

    Returns:
        Counts by outcome.
    """
    counts, ends = fuzz(evenly(count), seed, folder, jobs=2)
    for end in ends:
        print(end, flush=True)
    return {outcome: counts[outcome] for outcome in (*GOOD, *BAD)}


def evenly(count: int, kinds: Sequence[str] = ()) -> list[tuple[str, int]]:
    """So many inputs, as kind and number, evenly over the kinds (all of them by default)."""
    from campaign_inputs import KINDS

    names = list(kinds or KINDS)
    return [(names[k % len(names)], k // len(names)) for k in range(count)]


def fuzz(todo: Sequence[tuple[str, int]], seed: int, folder: Path, jobs: int = 1) -> tuple[Counter[str], list[str]]:
    """Uses spoilt inputs, given as kind and number, and counts what came of them; number -1 is the sound example.

    Returns:
        Counts by outcome, and for each input that came to a bad end: kind, number, outcome, what was said.
    """
    counts: Counter[str] = Counter()
    ends: list[str] = []
    broken: list[BaseException] = []

    def work(share: list[tuple[str, int]]) -> None:
        try:
            for (kind, number), outcome, said in _outcomes(share, seed, folder):
                counts[outcome] += 1
                if outcome in BAD:
                    ends.append(f"{kind} {number} (seed {seed}): {outcome}: {said}")
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=work, args=(list(todo[k::jobs]),)) for k in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    return counts, ends


def _outcomes(todo: list[tuple[str, int]], seed: int, folder: Path) -> Iterator[tuple[tuple[str, int], str, str]]:
    """What came of each input; a child that hangs or dies costs that input only.

    Raises:
        RuntimeError: the sound examples cannot be made.
    """
    while todo:
        with tempfile.TemporaryFile() as said, _child(todo, seed, folder, said) as lines:
            if lines.get(timeout=_BEGIN)[:1] != "{":
                raise RuntimeError(f"the sound examples cannot be made: {_end_of(said)}")
            while todo:
                try:
                    line = lines.get(timeout=SECONDS)
                except queue.Empty:
                    yield todo.pop(0), "hang", ""
                    break
                if not line:
                    yield todo.pop(0), "traceback", f"the process died: {_end_of(said)}"
                    break
                told = json.loads(line)
                yield todo.pop(0), told["outcome"], told["said"]


@contextlib.contextmanager
def _child(todo: list[tuple[str, int]], seed: int, folder: Path, said: IO[bytes]) -> Iterator[queue.SimpleQueue[str]]:
    """A process that uses inputs: the lines that it tells, the first when it is ready, "" when it has ended."""
    child = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).resolve()), "--worker", str(folder), "--seed", str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
    )
    assert child.stdin is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    try:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(todo) + "\n")
            child.stdin.flush()
        yield lines
    finally:
        child.kill()
        child.wait()


def _end_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")[-900:]


def _read(stream: Any, lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


# --- The child ------------------------------------------------------------------------------------------------------


def _worker(seed: int, folder: Path) -> None:
    """Uses the inputs that standard input lists, and tells of each in a line."""
    told, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    todo = json.loads(sys.stdin.readline())
    warnings.showwarning = lambda *_, **__: None
    sys.path.insert(0, str(Path(__file__).parent))
    import torch
    from campaign_inputs import KINDS

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=folder) as name:
        root = Path(name)
        os.environ |= {"OFFLINE_ROBUST_CACHE": str(root / "cache"), "MINARI_DATASETS_PATH": str(root / "minari")}
        made: dict[Any, Path] = {}
        for kind in dict.fromkeys(kind for kind, _ in todo):
            make = KINDS[kind].make
            if make not in made:
                made[make] = root / f"sound-{len(made)}"
                made[make].mkdir()
                make(made[make])
        _limit_memory()
        print("{}", file=told, flush=True)  # ready
        for kind, number in todo:
            outcome, said = _use(
                KINDS[kind], made[KINDS[kind].make], root / "work", (seed, zlib.crc32(kind.encode()), number)
            )
            print(json.dumps({"outcome": outcome, "said": said}), file=told, flush=True)


def _use(kind: Any, sound: Path, work: Path, seeds: tuple[int, ...]) -> tuple[str, str]:
    """Spoils a copy of a sound example, uses it, and says what came of that."""
    import numpy as np
    from campaign_inputs import spoil

    from offline_robust.errors import UserError

    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(sound, work)
    os.chdir(work)
    if seeds[-1] >= 0:  # number -1 is the sound example itself
        spoil(kind, work, np.random.default_rng(seeds))
    before = _peak(reset=True)
    outcome, said = "accepted", ""
    try:
        kind.use(work)
    except (UserError, OSError) as error:
        outcome, said = "one line", str(error)
    except MemoryError:
        outcome, said = "over 2 GB", traceback.format_exc()[-600:]
    except BaseException:
        outcome, said = "traceback", traceback.format_exc()[-900:]
    if _peak() - before > MEMORY:
        outcome = "over 2 GB"
    elif left := [str(path) for path in work.rglob(".tmp-*")]:
        outcome, said = "half-written", left[0]
    return outcome, said


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY + 2**29, resource.RLIM_INFINITY))


def _peak(reset: bool = False) -> int:
    """The most memory that this process has had since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kind", action="append", default=[])
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        _worker(given.seed, given.worker)
        return
    sys.path.insert(0, str(Path(__file__).parent))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        counts, ends = fuzz(evenly(given.inputs, given.kind), given.seed, Path(name), given.jobs)
    for end in ends:
        print(end)
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in (*GOOD, *BAD))
    print(f"{given.inputs} inputs in {time.monotonic() - began:.0f} s: {told}")
    sys.exit(1 if ends else 0)


if __name__ == "__main__":
    main()
