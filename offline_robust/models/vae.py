"""The transition VAE of DR-SAC: next observations from (s, a) and a latent draw.

Source: DR-SAC (arXiv 2506.12622) section 4 and its released code (branch `submission`): networks, losses and
default sizes; the options that go beyond it say so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.datasets.transitions import Batch
from offline_robust.models.base import ModelConfig, NominalModel, Sampler, Scales
from offline_robust.networks import MLP, Buffers, InferenceTail, adamw, descend, linear, load_optimiser
from offline_robust.networks.spec import MAX_LAYERS, MAX_WIDTH


class VAEConfig(ModelConfig):
    """The transition VAE and what widens it."""

    name: Literal["vae"] = "vae"
    latent_dim: int = Field(5, ge=1, le=1024, description="Width of z. DR-SAC: 5 (Pendulum, CartPole) to 32.")
    hidden: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] = Field(
        (256, 256),
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths: 16 at most, each of 1 to 8,192. DR-SAC: 256, 256.",
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="AdamW step. DR-SAC: 5e-5 (Pendulum), 5e-4 (others).")
    weight_decay: float = Field(0.01, ge=0, description="AdamW decay. DR-SAC: torch's default, 0.01.")
    kl_weight: float = Field(1.0, ge=0, description="Weight of the latent KL term. DR-SAC: 1.")
    predict_change: bool = Field(False, description="Decode s' - s in one-step stds instead of s'. Ours; DR-SAC: off.")
    normalise: bool = Field(False, description="Standardise observations inside the VAE. DR-SAC: HalfCheetah only.")
    decoder_noise: Literal["none", "learned"] = Field(
        "none", description="Add Gaussian noise of the residual's running std per dimension to samples. Ours."
    )
    smoothing: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Gaussian noise on samples, in units of the per-dimension one-step std. Ours: a KL ball around a "
        "model without spread holds that model alone.",
    )
    action_smoothing: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Gaussian noise on the action that samples are decoded from, in units of the logged actions' std: "
        "widens the model along what the actuators can do, so that samples stay where states can lie. Ours.",
    )

    @property
    def label(self) -> str:
        """See `ModelConfig.label`."""
        shown = {"smoothing": self.smoothing, "action_smoothing": self.action_smoothing}
        return " ".join(f"{knob}={value:g}" for knob, value in shown.items() if value)


class TransitionVAE(NominalModel):
    """Encoder q(z | s, a, s'), decoder s' = dec(s, a, z), prior z ~ N(0, I).

    Loss: mean squared error of the decoded next observation + kl_weight * KL(q || N(0, I)), both means over batch
    and dimensions (so the decoder's implied variance is O / (2 z); see docs/algorithms/dr_sac.md).

    Args:
        config: sizes and options.
        observation_dim: O.
        action_dim: A.
        scales: dataset statistics (normalisation, units of smoothing).
        generator: draws the initial weights.
        device: where tensors live.
    """

    Config = VAEConfig

    def __init__(
        self,
        config: VAEConfig,
        observation_dim: int,
        action_dim: int,
        scales: Scales,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.scales = scales
        inputs, z = observation_dim + action_dim, config.latent_dim
        # The encoder's last hidden layer has no activation, as in the released code.
        self.networks = nn.ModuleDict(
            {
                "encoder": MLP([inputs + observation_dim, *config.hidden], generator),
                "latent_mean": linear(config.hidden[-1], z, generator),
                "latent_log_var": linear(config.hidden[-1], z, generator),
                "decoder": MLP([inputs + z, *config.hidden, observation_dim], generator),
            }
        ).to(device)
        self.buffers: Buffers = {}
        self.residual_var = torch.zeros(observation_dim, device=device)
        self.optimiser = adamw([(self.networks.parameters(), config.learning_rate)], config.weight_decay)
        mean, std = scales.mean.to(device), scales.std.to(device)
        self.shift = mean if config.normalise else torch.zeros_like(mean)
        self.scale = std if config.normalise else torch.ones_like(std)
        self.step_std = scales.step_std.to(device)
        self.action_std = scales.action_std.to(device)

    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """One AdamW step of the VAE loss on the rows with a true next observation."""
        loss, info = self.vae_loss(batch, generator)
        descend(self.optimiser, loss)
        return info

    def vae_loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction plus latent KL; rows without a true next observation weigh nothing."""
        weight = batch.next_valid.float().unsqueeze(1)
        weight = weight / weight.sum().clamp_min(1.0)
        inputs = torch.cat([self.normalised(batch.observations), batch.actions], dim=1)
        # `where`, not a product: a next observation that does not exist may hold anything, NaN included.
        target = self._encode_target(batch.observations, batch.next_observations)
        target = torch.where(batch.next_valid.unsqueeze(1), target, 0.0)
        hidden = self.networks["encoder"](torch.cat([inputs, target], dim=1))
        mean, log_var = self.networks["latent_mean"](hidden), self.networks["latent_log_var"](hidden)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        z = torch.addcmul(mean, (0.5 * log_var).exp(), noise)
        error = (self.networks["decoder"](torch.cat([inputs, z], dim=1)) - target).square()
        reconstruction = (weight * error).sum(0).mean()
        latent_kl = (weight * 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var)).sum(0).mean()
        if self.config.decoder_noise == "learned":
            seen = batch.next_valid.any().float() * 0.01
            self.residual_var.lerp_((weight * error.detach()).sum(0), seen)
        loss = reconstruction + self.config.kl_weight * latent_kl
        return loss, {"model/reconstruction": reconstruction.detach(), "model/latent_kl": latent_kl.detach()}

    def sampler(self, dtype: torch.dtype = torch.float32) -> Sampler:
        """See `NominalModel.sampler`; z ~ N(0, I), then decoder noise and smoothing."""
        decoder = _Decoder(self, dtype)
        noise_std = self._noise_std()

        @torch.no_grad()
        def draw(observations: Tensor, actions: Tensor, count: int, generator: torch.Generator) -> Tensor:
            rows, device = len(observations), observations.device
            z = torch.randn((rows, count, decoder.noise_dim), generator=generator, device=device)
            decoded = decoder(observations, actions, z)
            if noise_std is not None:
                decoded.addcmul_(torch.randn(decoded.shape, generator=generator, device=device), noise_std)
            return decoded

        return draw

    @torch.no_grad()
    def mean(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `NominalModel.mean`: the decoder at z = 0."""
        decoder = _Decoder(self, torch.float32)
        z = observations.new_zeros((len(observations), 1, decoder.noise_dim))
        return decoder(observations, actions, z).squeeze(1)

    def state(self) -> dict[str, Any]:
        """See `NominalModel.state`."""
        return {
            "networks": self.networks.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "residual_var": self.residual_var,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """See `NominalModel.load_state`."""
        self.networks.load_state_dict(state["networks"])
        load_optimiser(self.optimiser, state["optimiser"])
        self.residual_var.copy_(state["residual_var"])

    def _noise_std(self) -> Tensor | None:
        """Standard deviation of the noise on samples, in observation units."""
        if self.config.smoothing == 0.0 and self.config.decoder_noise == "none":
            return None
        unit = self.step_std if self.config.predict_change else self.scale
        return (self.residual_var * unit.square() + (self.config.smoothing * self.step_std).square()).sqrt()

    def normalised(self, observations: Tensor) -> Tensor:
        """What the networks see of an observation."""
        return (observations - self.shift) / self.scale if self.config.normalise else observations

    def _encode_target(self, observations: Tensor, next_observations: Tensor) -> Tensor:
        if self.config.predict_change:
            return (next_observations - observations) / self.step_std.clamp_min(1e-6)
        return self.normalised(next_observations)


class _Decoder:
    """(B, O), (B, A) and standard normal noise (B, m, noise_dim) to next observations (B, m, O).

    What (s, a) adds to the first layer is computed once a pair; the noise is the latent draw and, with action
    smoothing, that of the action, which enters the first layer the same way.
    """

    def __init__(self, model: TransitionVAE, dtype: torch.dtype) -> None:
        self.model = model
        network = model.networks["decoder"]
        assert isinstance(network, MLP)
        first, z = network.linears[0], model.config.latent_dim
        weight = first.weight.detach()
        self.weight_pair, self.weight_z = torch.split(weight, [weight.shape[1] - z, z], dim=1)
        if model.config.action_smoothing > 0.0:
            actions = weight[:, -z - len(model.action_std) : -z]
            self.weight_z = torch.cat([self.weight_z, actions * model.config.action_smoothing * model.action_std], 1)
        self.noise_dim = self.weight_z.shape[1]
        self.bias = first.bias.detach()
        self.tail = InferenceTail(network, dtype, model.buffers)

    def __call__(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        model = self.model
        pair = F.linear(torch.cat([model.normalised(observations), actions], dim=1), self.weight_pair, self.bias)
        noise = z.flatten(0, 1)
        x = torch.mm(noise, self.weight_z.t(), out=self.tail.workspace(len(noise)))
        x.view(*z.shape[:2], -1).add_(pair.unsqueeze(1))
        decoded = self.tail(x).view(*z.shape[:2], -1)
        if model.config.predict_change:
            return torch.addcmul(observations.unsqueeze(1), decoded, model.step_std)
        return torch.addcmul(model.shift, decoded, model.scale)
