"""Discounted returns are those of the recursion; none reaches over the end of its episode or stretch of rows."""

from __future__ import annotations

import pytest
import torch

from offline_robust.baselines.segments import segment_numbers
from offline_robust.datasets.returns import discounted_returns

LENGTHS = [1, 7, 2, 30, 1]


def rewards_and_segments() -> tuple[torch.Tensor, torch.Tensor]:
    segment = torch.arange(5).repeat_interleave(torch.tensor(LENGTHS))
    return torch.randn(sum(LENGTHS), generator=torch.Generator().manual_seed(0)), segment


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_returns_are_those_of_the_recursion(discount: float) -> None:
    rewards, segment = rewards_and_segments()
    expected = torch.zeros(len(rewards), dtype=torch.float64)
    for row in reversed(range(len(rewards))):
        goes_on = row + 1 < len(rewards) and segment[row + 1] == segment[row]
        expected[row] = rewards[row] + (discount * expected[row + 1] if goes_on else 0.0)
    torch.testing.assert_close(discounted_returns(rewards, segment, discount), expected)


def test_nothing_crosses_from_a_neighbour() -> None:
    rewards, segment = rewards_and_segments()
    before = discounted_returns(rewards, segment, 0.99)
    rewards[segment == 3] = torch.inf  # not a product with zero, which would be NaN
    after = discounted_returns(rewards, segment, 0.99)
    assert torch.equal(before[segment != 3], after[segment != 3])


def test_segments_are_numbered_from_their_last_rows() -> None:
    _, segment = rewards_and_segments()
    ends = torch.ones(len(segment), dtype=torch.bool)
    ends[:-1] = segment[1:] != segment[:-1]
    assert torch.equal(segment_numbers(ends), segment)
    assert discounted_returns(torch.ones(1), torch.zeros(1, dtype=torch.int64), 0.9).tolist() == [1.0]
