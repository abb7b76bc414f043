"""Finite problems as Gymnasium environments, with numbered states and actions."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from offline_robust.tabular.mdp import FiniteMDP, as_problem
from offline_robust.tabular.problems import RewardForm, american_put, cliffwalking, random_mdp, three_state_chain


class FiniteEnv(gym.Env[np.int64, np.int64]):
    """Any finite problem: observation and action are numbers, an episode ends in a terminal state.

    Args:
        mdp: the problem; it may be replaced between steps, by one of as many states and actions.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]  # Gymnasium declares it per object

    def __init__(self, mdp: FiniteMDP) -> None:
        self.mdp = mdp
        self.observation_space = gym.spaces.Discrete(mdp.states)
        self.action_space = gym.spaces.Discrete(mdp.actions)
        self.state = 0

    @property
    def mdp(self) -> FiniteMDP:
        """The problem that is stepped."""
        return self._mdp

    @mdp.setter
    def mdp(self, mdp: FiniteMDP) -> None:
        self._mdp = mdp
        self._transitions, self._rewards = as_problem(mdp.transitions, mdp.rewards)
        self._cumulative = self._transitions.probabilities.cumsum(-1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Draws the first state."""
        super().reset(seed=seed)
        self.state = self._drawn(self._mdp.start.cumsum())
        return np.int64(self.state), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Draws the next state."""
        s, a = self.state, int(action)
        k = self._drawn(self._cumulative[s, a])
        reward = self._rewards.certain[s, a]
        if self._rewards.entering is not None:
            reward = reward + self._rewards.entering[s, a, k]
        self.state = int(self._transitions.successors[s, a, k])
        return np.int64(self.state), float(reward), bool(self._mdp.terminal[self.state]), False, {}

    def _drawn(self, cumulative: np.ndarray[Any, np.dtype[np.float64]]) -> int:
        # The last entry may be one less rounding.
        return int(np.searchsorted(cumulative[:-1], self.np_random.random(), side="right"))


class CliffwalkingEnv(FiniteEnv):
    """`cliffwalking`; `wind` may be set at any time and acts from the next step.

    Args:
        wind: see `cliffwalking`.
        reward: see `cliffwalking`; the default is what an episode shows, so that its return is the plain sum.
        water_ends: see `cliffwalking`.
    """

    def __init__(self, wind: float = 0.5, reward: RewardForm = "entering", water_ends: bool = False) -> None:
        self._reward, self._water_ends, self._wind = reward, water_ends, wind
        super().__init__(self._made())

    @property
    def wind(self) -> float:
        """Probability of a random move."""
        return self._wind

    @wind.setter
    def wind(self, wind: float) -> None:
        before, self._wind = self._wind, wind
        try:
            self.mdp = self._made()
        except Exception:
            self._wind = before
            raise

    def _made(self) -> FiniteMDP:
        return cliffwalking(self._wind, reward=self._reward, water_ends=self._water_ends)


class AmericanPutEnv(FiniteEnv):
    """`american_put`; `p_up` may be set at any time and acts from the next step. Rewards are not discounted.

    Args:
        p_up: see `american_put`.
        stages: see `american_put`.
    """

    def __init__(self, p_up: float = 0.5, stages: int | None = None) -> None:
        self._stages, self._p_up = stages, p_up
        super().__init__(self._made())

    @property
    def p_up(self) -> float:
        """Probability of a rise."""
        return self._p_up

    @p_up.setter
    def p_up(self, p_up: float) -> None:
        before, self._p_up = self._p_up, p_up
        try:
            self.mdp = self._made()
        except Exception:
            self._p_up = before
            raise

    def _made(self) -> FiniteMDP:
        return american_put(self._p_up, stages=self._stages)


class RandomMDPEnv(FiniteEnv):
    """`random_mdp`.

    Args:
        states: S.
        actions: A.
        successors: K.
        problem_seed: which problem; the seed of `reset` draws what happens in it.
    """

    def __init__(self, states: int = 20, actions: int = 3, successors: int = 5, problem_seed: int = 0) -> None:
        super().__init__(random_mdp(states, actions, successors, seed=problem_seed))


class ThreeStateChainEnv(FiniteEnv):
    """`three_state_chain`.

    Args:
        p_success: of a climb.
    """

    def __init__(self, p_success: float = 0.8) -> None:
        super().__init__(three_state_chain(p_success))
