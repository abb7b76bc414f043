"""Twenty-three kinds of files, spoilt from fixed seeds: each is refused in one line or accepted, in time and in memory.

The long form: python tests/campaign.py --inputs 2000
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from campaign_fuzz import BAD, GOOD, fuzz
from campaign_inputs import KINDS

SLOW = ("meta", "model", "metrics", "results meta")
"""Kinds that end in a report, a second each."""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are read from Linux's /proc")
def test_spoilt_files_are_refused_in_one_line_or_accepted(tmp_path: Path) -> None:
    todo = [(kind, number) for kind in KINDS for number in range(-1, 3 if kind in SLOW else 7)]
    counts, ends = fuzz(todo, seed=0, folder=tmp_path)
    assert not ends, "\n".join(ends)
    assert not any(counts[outcome] for outcome in BAD)
    assert sum(counts.values()) == len(todo)
    assert all(counts[outcome] > 30 for outcome in GOOD)
