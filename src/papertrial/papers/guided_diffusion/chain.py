"""The chain of noise: its schedules, its tables, and what they say of one step forth and back.

Notation
    B batch, C channels, H and W sides, T steps, t a place in the tables, x_0 images in [-1, 1], x_t the same with noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.core.errors import PapertrialError


def betas(schedule: str, steps: int) -> np.ndarray:
    """float64 (T,): the variance of the noise of each step. Raises PapertrialError for another schedule than two."""
    if schedule == "linear":  # that of Ho et al. for 1000 steps, stretched
        return np.linspace(1e-4, 0.02, steps) * 1000 / steps
    if schedule == "cosine":
        kept = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - kept[1:] / kept[:-1], 0.999)
    raise PapertrialError(f"there is no schedule {schedule!r}", "choose --set noise_schedule=linear or cosine")


def spaced(count: int, steps: int) -> np.ndarray:
    """int64 (count,): as many of the steps 0 .. steps - 1, evenly spaced from first to last; one is the first.

    Raises PapertrialError for fewer than one or more than there are.
    """
    if not 1 <= count <= steps:
        raise PapertrialError(f"{count} steps are not from 1 to the {steps} of the chain", "choose another --steps")
    # DIFF: the authors' `ddimN` takes every so many steps and never the last one; this spacing serves both samplers
    return np.round(np.arange(count) * ((steps - 1) / max(count - 1, 1))).astype(np.int64)


class Predicted(NamedTuple):
    """What a network says of the step before: N(mean, exp(log_variance)), and the image it comes from, all (B, C, H, W)."""

    mean: Tensor
    log_variance: Tensor
    x0: Tensor


class Process(nn.Module):
    """The chain x_0 -> x_t as tables of its T steps, float64. `t` is int64 (B,), a place in the tables.

    time: int64 (T,), what the network is told at each place: the step of the chain it was trained on.
    The tables follow the module from device to device and are no part of its state dict.
    """

    beta: Tensor
    alpha_bar: Tensor
    before: Tensor
    log_beta: Tensor
    log_posterior: Tensor
    from_x0: Tensor
    from_xt: Tensor
    time: Tensor

    def __init__(self, beta: np.ndarray, time: np.ndarray | None = None) -> None:
        super().__init__()
        alpha_bar = np.cumprod(1 - beta)
        before = np.append(1.0, alpha_bar[:-1])  # of the step before
        posterior = beta * (1 - before) / (1 - alpha_bar)
        tables = {
            "beta": beta,
            "alpha_bar": alpha_bar,
            "before": before,
            "log_beta": np.log(beta),
            # the first step's posterior has no variance: it is given that of the second
            "log_posterior": np.log(np.append(posterior[1:2] if len(beta) > 1 else beta, posterior[1:])),
            "from_x0": beta * np.sqrt(before) / (1 - alpha_bar),
            "from_xt": (1 - before) * np.sqrt(1 - beta) / (1 - alpha_bar),
            "time": np.arange(len(beta)) if time is None else time,
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def __len__(self) -> int:
        return len(self.beta)

    def respaced(self, times: np.ndarray) -> Process:
        """The chain of some of its steps: the noise at each is the same, the steps between them are larger."""
        alpha_bar = self.alpha_bar.cpu().numpy()[times]
        chain = Process(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]), self.time.cpu().numpy()[times])
        return chain.to(self.beta.device)

    def diffuse(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_0)."""
        return at(self.alpha_bar.sqrt(), t, x0) * x0 + at((1 - self.alpha_bar).sqrt(), t, x0) * noise

    def posterior(self, x0: Tensor, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, C, H, W) and log variance (B, 1, 1, 1) of q(x_{t-1} | x_t, x_0)."""
        mean = at(self.from_x0, t, x0) * x0 + at(self.from_xt, t, xt) * xt
        return mean, at(self.log_posterior, t, x0)

    def x0_of(self, xt: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return at(self.alpha_bar.rsqrt(), t, xt) * xt - at((1 / self.alpha_bar - 1).sqrt(), t, xt) * noise

    def noise_of(self, xt: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        return (at(self.alpha_bar.rsqrt(), t, xt) * xt - x0) / at((1 / self.alpha_bar - 1).sqrt(), t, xt)

    def predict(self, output: Tensor, xt: Tensor, t: Tensor, clip: bool = True) -> Predicted:
        """Read a network's output (B, 2 C, H, W): noise, and where between its bounds the log variance lies, -1 to 1."""
        noise, fraction = output.to(xt.dtype).chunk(2, 1)
        x0 = self.x0_of(xt, t, noise)
        x0 = x0.clamp(-1, 1) if clip else x0
        mean, least = self.posterior(x0, xt, t)
        return Predicted(mean, torch.lerp(least, at(self.log_beta, t, xt), (fraction + 1) / 2), x0)

    def bound(self, found: Predicted, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """(B,): the term of the variational bound at step t, in bits per dimension of images that were bytes."""
        mean, log_variance = self.posterior(x0, xt, t)
        nats = torch.where(
            t.view(-1, 1, 1, 1) == 0,
            -log_probability(x0, found.mean, 0.5 * found.log_variance),
            normal_kl(mean, log_variance, found.mean, found.log_variance),
        )
        return nats.mean((1, 2, 3)) / math.log(2)

    def prior(self, x0: Tensor) -> Tensor:
        """(B,): what is left of the images at the last step, in bits per dimension."""
        kept = self.alpha_bar[-1].to(x0.dtype)
        zero = torch.zeros_like(kept)
        return normal_kl(kept.sqrt() * x0, (1 - kept).log(), zero, zero).mean((1, 2, 3)) / math.log(2)


def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """(B, 1, 1, 1): the table at each row's step."""
    return table[t].to(like.dtype).view(-1, 1, 1, 1)


def normal_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL of one normal from another, in nats, value by value."""
    ratio = log_variance - other_log_variance
    return 0.5 * (ratio.exp() - 1 - ratio + (mean - other_mean).square() * (-other_log_variance).exp())


def log_probability(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability, in nats, of the byte that x in [-1, 1] was, under a normal; the outermost bytes have the tails.

    The distribution function is the tanh form that the authors use, and probabilities are at least 1e-12.
    """

    def below(edge: Tensor) -> Tensor:
        z = (x + edge - mean) * (-log_scale).exp()
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    half = x.new_tensor(1 / 255)
    above, under = below(half), below(-half)
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - under, above - under))
    return mass.clamp_min(1e-12).log()
