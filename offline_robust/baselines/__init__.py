"""The d3rlpy bridge: its algorithms as learners of ours, our data and policies in its formats, and back.

d3rlpy is an extra and is imported where it is used; nothing of it is ever unpickled.
"""

from offline_robust.baselines.adapter import PolicyAlgorithm
from offline_robust.baselines.algorithm_config import D3RLPyConfig
from offline_robust.baselines.conversion import from_replay_buffer, to_replay_buffer
from offline_robust.baselines.d3rlpy_files import read_d3rlpy, write_d3rlpy
from offline_robust.baselines.learner import D3RLPyLearner
from offline_robust.baselines.names import CONTINUOUS, DISCRETE, PREFIX
from offline_robust.learners import LEARNERS

for _name in (*CONTINUOUS, *DISCRETE):
    LEARNERS.register(PREFIX + _name, D3RLPyLearner, ours=True)

__all__ = [
    "PREFIX",
    "D3RLPyConfig",
    "D3RLPyLearner",
    "PolicyAlgorithm",
    "from_replay_buffer",
    "read_d3rlpy",
    "to_replay_buffer",
    "write_d3rlpy",
]
