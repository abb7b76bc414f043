"""Short forms of the campaigns of kills and pairs; ``python tests/campaign.py`` runs the long ones."""

from __future__ import annotations

from pathlib import Path

import campaign_kills
import campaign_pairs
import pytest


def test_killed_work_ends_with_the_bytes_it_would_have_ended_with(tmp_path: Path) -> None:
    kinds = ("train", "evaluate", "collect", "train")
    counts = campaign_kills.run(len(kinds), 1, tmp_path, kinds, processes=False)
    assert counts == {"equal": len(kinds), "unequal": 0, "stuck": 0}


def test_two_in_one_folder_are_one_whole_result_or_one_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [pair for pair in campaign_pairs.PAIRS if pair != ("sweep", "sweep")]
    counts = campaign_pairs.run(len(pairs), 1, tmp_path, pairs, processes=False)
    assert sum(counts[outcome] for outcome in campaign_pairs.BAD) == 0, capsys.readouterr().out
    assert counts["one"] + counts["both"] == len(pairs)
