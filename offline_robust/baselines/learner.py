"""Any Q-learning algorithm of d3rlpy as a learner of ours: its networks, losses and optimisers; our loop and batches.

d3rlpy's loop draws every minibatch transition by transition in Python. Here a batch is indexed on the device and
handed over as the tensors that d3rlpy would have made of it (`TorchMiniBatch.from_batch`); the update that follows is
d3rlpy's own, bit for bit.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from offline_robust.baselines.algorithm_config import D3RLPyConfig
from offline_robust.baselines.algorithms import fit_neighbours, fit_scalers, make_algorithm
from offline_robust.baselines.export import export_policy
from offline_robust.baselines.fields import resolve
from offline_robust.baselines.modules import load_optimiser_state, networks_of, optimiser_state, optimisers_of
from offline_robust.baselines.segments import segment_ends, segment_numbers
from offline_robust.baselines.streams import PrivateStream
from offline_robust.datasets.feed import Feed
from offline_robust.datasets.returns import discounted_returns
from offline_robust.datasets.transitions import Batch
from offline_robust.errors import ConfigError
from offline_robust.learners import Learner, Problem
from offline_robust.networks import Policy

_NEXT_ACTIONS = ("ReBRAC",)


class D3RLPyLearner(Learner):
    """A d3rlpy algorithm in our training loop.

    Args:
        config: names the algorithm.
        problem: as for every learner; scalers are fitted on its dataset.

    Raises:
        ConfigError: the algorithm is for other actions than the dataset's, or d3rlpy refuses its configuration.
        MissingExtra: d3rlpy is not installed.
    """

    Config = D3RLPyConfig
    config: D3RLPyConfig
    actions = frozenset({"box", "discrete"})

    def __init__(self, config: D3RLPyConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        if (dataset := problem.dataset) is None:
            raise ConfigError(f"{config.name} needs a dataset: its scalers are fitted on it")
        if config.discrete != dataset.discrete:
            kind = "discrete" if config.discrete else "continuous"
            raise ConfigError(f"{config.name} needs {kind} actions, the dataset's are {dataset.action_space}")
        space = dataset.action_space
        if isinstance(space, gym.spaces.Discrete) and space.start != 0:
            raise ConfigError(f"{config.name} needs actions that count from 0, the dataset's are {space}")
        name, streams = config.algorithm, problem.streams
        resolved, version = resolve(name, config.config)
        if config.version not in (None, version):
            raise ConfigError(
                f"learner.version: this run is of d3rlpy {config.version}, installed is {version}: install the former"
            )
        rewards = config.shaped(dataset.rewards)
        self._stream = PrivateStream(_seed(streams["init"]), problem.device)
        self.algorithm = make_algorithm(
            name,
            resolved,
            (problem.observation_dim, problem.action_dim),
            dataset.action_space,
            problem.device,
            self._stream,
            lambda made: fit_scalers(made, dataset, rewards),
            None if dataset.discrete else dataset.actions.cpu().numpy(),
        )
        """d3rlpy's algorithm object, for its evaluators; it shares the networks that are trained here."""
        if name == "PRDC":
            fit_neighbours(self.algorithm, dataset)
        self._resolved = resolved
        self._losses: dict[str, float] = {}
        self._looks_ahead = name in _NEXT_ACTIONS

    def prepare(self, feed: Feed) -> None:
        """See `Learner.prepare`: what was logged next, for the algorithms that look at it."""
        dataset = self.problem.dataset
        if dataset is None or not (self._looks_ahead or self.algorithm.need_returns_to_go):
            return
        ends = segment_ends(dataset)
        if self._looks_ahead:
            next_actions = dataset.actions.roll(-1, 0)
            next_actions[ends] = 0
            feed.add_column("next_actions", next_actions, usable=~ends | dataset.terminated)
        if self.algorithm.need_returns_to_go:
            rewards = self.config.shaped(dataset.rewards)
            if (scaler := self.algorithm.reward_scaler) is not None:
                rewards = scaler.transform(rewards)
            returns = discounted_returns(rewards, segment_numbers(ends), self.algorithm.gamma)
            feed.add_column("returns_to_go", returns.float())

    # --- Update -----------------------------------------------------------------------------------------------------

    def torch_batch(self, batch: Batch) -> Any:
        """d3rlpy's `TorchMiniBatch` of a minibatch: scaled, columns of shape (B, 1), zeros where nothing follows.

        Raises:
            TypeError: the algorithm looks at what was logged next, and the batch is not of a feed that `prepare` saw.
        """
        from d3rlpy.torch_utility import TorchMiniBatch

        algorithm = self.algorithm
        observations, actions = batch.observations, self._actions(batch.actions)
        rewards = self.config.shaped(batch.rewards)[:, None]
        following = torch.where(batch.next_valid[:, None], batch.next_observations, 0.0)
        next_actions = self._actions(self._column(batch, "next_actions")) if self._looks_ahead else None
        returns = torch.zeros_like(rewards)
        if algorithm.need_returns_to_go:
            returns = self._column(batch, "returns_to_go")[:, None]
        if (scaler := algorithm.observation_scaler) is not None:
            observations, following = scaler.transform(observations), scaler.transform(following)
        if (scaler := algorithm.action_scaler) is not None:
            actions = scaler.transform(actions)
            next_actions = None if next_actions is None else scaler.transform(next_actions)
        if (scaler := algorithm.reward_scaler) is not None:
            rewards = scaler.transform(rewards)
        return TorchMiniBatch(
            observations=observations,
            actions=actions,
            rewards=rewards,
            next_observations=following,
            next_actions=torch.zeros_like(actions) if next_actions is None else next_actions,
            returns_to_go=returns,
            terminals=batch.terminated[:, None].float(),
            intervals=torch.ones_like(rewards),
            device=str(self.problem.device),
        )

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update of d3rlpy's. A loss that it computes at some updates only keeps its last value between them."""
        full = self.torch_batch(batch)
        with self._stream.active():
            losses = self.algorithm.impl.update(full, self.algorithm.grad_step)
        self.algorithm.set_grad_step(self.algorithm.grad_step + 1)
        self._losses |= {key: float(value) for key, value in losses.items()}
        values = torch.tensor(list(self._losses.values())).unbind()
        return {f"train/{key}": value for key, value in zip(self._losses, values, strict=True)}

    def _column(self, batch: Batch, name: str) -> Tensor:
        if name not in batch.extras:
            raise TypeError(f"{self.config.name} learns from batches of a feed that learner.prepare has seen")
        return batch.extras[name]

    def _actions(self, actions: Tensor) -> Tensor:
        """(B, A) float32; discrete actions in one column."""
        return actions if actions.ndim == 2 else actions[:, None].float()

    # --- State and policy -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Networks, optimisers, d3rlpy's random stream and count of updates, and the losses last seen."""
        implementation = self.algorithm.impl
        return {
            "networks": {name: dict(part.state_dict()) for name, part in networks_of(implementation).items()},
            "optimisers": {name: optimiser_state(part) for name, part in optimisers_of(implementation).items()},
            "stream": self._stream.state(),
            "updates": int(self.algorithm.grad_step),
            "losses": dict(self._losses),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave.

        Raises:
            ValueError, RuntimeError, KeyError, TypeError: it is not the state of such a learner.
        """
        implementation = self.algorithm.impl
        updates, losses = state["updates"], state["losses"]
        if type(updates) is not int or updates < 0:
            raise ValueError("the count of updates is not a whole number")
        if not isinstance(losses, dict) or not all(isinstance(v, float) for v in losses.values()):
            raise ValueError("the last losses are not numbers")
        for name, part in networks_of(implementation).items():
            part.load_state_dict(state["networks"][name])
        for name, wrapper in optimisers_of(implementation).items():
            load_optimiser_state(wrapper, state["optimisers"][name])
        self._stream.load_state(state["stream"])
        self.algorithm.set_grad_step(updates)
        self._losses = dict(losses)

    def policies(self) -> dict[str, Policy]:
        """See `Learner.policies`: one of ours where its networks allow it, else one that acts through d3rlpy."""
        name, environment = self.config.algorithm, self.problem.environment
        return {"policy": export_policy(self.algorithm, name, self._resolved, environment)}


def _seed(stream: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=stream, device=stream.device))
