"""Data that say nothing of what follows a row."""

from __future__ import annotations

from offline_robust.datasets.transitions import TransitionDataset


def future_warnings(dataset: TransitionDataset, modelled: bool) -> list[str]:
    """What a learner cannot learn where every row ends its episode, or none has a next observation; one line each.

    Args:
        dataset: what is learned from.
        modelled: whether a nominal model is fitted to it.
    """
    usable = dataset.terminated | dataset.next_valid
    said = []
    if bool(dataset.terminated[usable].all()):
        said.append(
            "every row of the data ends its episode: values are of one step alone, and nothing that follows a row can "
            "be made robust; check the column of terminals"
        )
    if modelled and not bool(dataset.next_valid.any()):
        said.append(
            "no row of the data has a next observation: the nominal model sees none and is as it was initialised"
        )
    return said
