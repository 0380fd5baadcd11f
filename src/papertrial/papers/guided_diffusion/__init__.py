"""Guided diffusion (ADM) - images out of noise, step by step, steered by the gradient of a classifier.

Prafulla Dhariwal, Alex Nichol. NeurIPS 2021, arXiv 2105.05233. Learned variances and the cosine schedule are those of
Alex Nichol, Prafulla Dhariwal: Improved Denoising Diffusion Probabilistic Models, ICML 2021, arXiv 2102.09672.

The idea
    Noise is added to an image in many small steps until nothing else is left. A U-Net learns to undo one step, and from pure
    noise it walks all the way back to an image. A second network learns to name the class of images at every level of noise;
    moved along its gradient, each step of the walk becomes one towards a class. A larger scale of that gradient gives images
    that are more typical and less varied.

The equation
    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                            (eq. 17 of 2102.09672, section 2 there)
    L = |eps - eps_theta(x_t, t)|^2 + lambda L_vlb, the bound seen by the variances alone        (2102.09672, eq. 16)
    Sigma = exp(v log beta_t + (1 - v) log betatilde_t), v of the network                        (2102.09672, eq. 15)
    x_{t-1} ~ N(mu + s Sigma grad_{x_t} log p(y | x_t, t), Sigma)                                (algorithm 1)
    eps' = eps - sqrt(1 - abar_t) s grad_{x_t} log p(y | x_t, t), for DDIM                       (algorithm 2)

What matters
    The classifier must have seen noise, and be told the same step as the U-Net: of the original chain, also where steps are
    left out. The network's last layers start at zero. Tables are float64. The walk uses averaged weights. The estimate of the
    image is clipped at every step. Few images and few steps give blurs before they give strokes.

Requires / Offers
    Requires images of at least 4 pixels a side, of any number of channels, and labels for guidance. Offers `draw` (by label,
    guidance scale, number of steps, from an image), `bits_per_dim`; `checkpoints` reads the authors' weights.

Relations
    DDPM (Ho et al. 2020) with learned variances, DDIM's sampler (Song et al. 2020), the up and down blocks of BigGAN. SDEdit's
    start from an image.

Try
    papertrial fit guided_diffusion --data photos/ --budget 30m
    papertrial generate runs/guided_diffusion-photos --label cat --guidance 4

Cost
    tiny: seconds on a CPU. base: 5 to 30 minutes on a CPU for images of 16 to 28 pixels. paper: 256 x 256, hundreds of GPU days.

Notation
    B batch, C channels, H and W sides, T steps of the chain, t a step from 0, x_0 images in [-1, 1], eps the noise that made x_t.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import Curve, Figure, Measured, Paper, claim
from papertrial.core.recipe import Optim, Recipe, resolve, sourced
from papertrial.core.run import Run
from papertrial.core.task import Prepared, Split, Stage
from papertrial.data import open as open_data
from papertrial.data.toy import at_hand
from papertrial.data.views import Draw, flip, random_resized_crop
from papertrial.papers.guided_diffusion import checkpoints
from papertrial.papers.guided_diffusion.unet import Classifier, Plan, UNet, side_at
from papertrial.tasks._pictures import Drawn, Measures, draw, picture_scores
from papertrial.train.device import evaluating
from papertrial.train.loop import train
from papertrial.train.stages import train_stages

PAPER = Paper(
    id="guided_diffusion",
    title="Diffusion Models Beat GANs on Image Synthesis",
    kind="system",
    method="GuidedDiffusion",
    idea="Steers a diffusion model with the gradient of a classifier, which trades variety for fidelity.",
    authors="Prafulla Dhariwal, Alex Nichol",
    year=2021,
    arxiv="2105.05233",
    month="2021-06",
    tasks=("image_generation",),
    tags=("vision", "generative", "diffusion", "guidance"),
    baselines=("gan", "pixel_gaussian"),
    official="https://github.com/openai/guided-diffusion",
    licence="MIT",
    caveats=(
        "The unguided models of the paper are still given the class; a guidance of 0 is no model without labels "
        "(guided-diffusion#3). Here the U-Net is given none unless class_cond is set.",
        "The authors' code does not say what its flags must be for a checkpoint: predicted variances double the output, and a "
        "class table, the heads and the order of queries and keys must fit (guided-diffusion#60, ilvr_adm#27).",
        "Training time is not stated in the text; about 1000 GPU days were told by others (guided-diffusion#67, ilvr_adm#7).",
        "On a thousand images samples stay blurry until crops are drawn at random (improved-diffusion#117, guided-diffusion#35).",
        "Half precision overflows in the authors' code without loss scaling; autocast to bfloat16 does not.",
        "The Frechet distance of the paper is between features of Inception; ours, of a small classifier of the same data, "
        "cannot be compared with it.",
    ),
)


def _side(facts: Facts) -> int:
    return max(facts.height, facts.width)


def _by_side(*rules: tuple[int, Any]) -> Callable[[Facts], Any]:
    """`(longest side, value)` pairs, smallest first; None, the default, for larger images and where there are none."""
    return lambda facts: next((value for side, value in rules if 0 < _side(facts) <= side), None)


@dataclass(frozen=True)
class Config:
    width: int = sourced(256, "table 11, ImageNet 128 to 512", auto=_by_side((48, 32), (96, 64)))
    multipliers: tuple[float, ...] = sourced(
        (1, 1, 2, 2, 4, 4),
        "table 11, ImageNet 256",
        auto=_by_side((12, (1, 2)), (48, (1, 2, 2)), (96, (1, 2, 3, 4)), (128, (1, 1, 2, 3, 4))),
    )
    blocks: int = sourced(2, "table 11; 3 at 64 pixels", auto=_by_side((48, 1)))
    attention: int = sourced(
        32, "sec. 3: at 32, 16 and 8 pixels; the longest side of feature maps that have it", auto=_by_side((20, 8), (48, 14), (96, 16))
    )
    heads: int = sourced(0, "table 11; 4 at 128 pixels, and 0 is as many as head_width gives")
    head_width: int = sourced(64, "sec. 3", auto=_by_side((96, 32)))
    qkv_first: bool = sourced(False, "authors' code; true at 64 pixels")
    groups: int = sourced(32, "authors' code", auto=_by_side((96, 8)))
    dropout: float = sourced(0.0, "table 11; 0.1 at 64 pixels")
    class_cond: bool = sourced(
        False, "table 4 has both; here guidance alone names the class, so that images without a label are drawn too"
    )
    steps: int = sourced(1000, "table 11")
    schedule: str = sourced("linear", "table 11; cosine at 64 pixels and below", auto=_by_side((64, "cosine")))
    vlb: float = sourced(0.001, "2102.09672, eq. 16: lambda, the weight of the bound")
    flips: bool = sourced(True, "authors' code", auto=lambda facts: facts.channels == 3)
    classifier_width: int = sourced(128, "authors' code", auto=_by_side((48, 32), (96, 64)))
    classifier_blocks: int = sourced(2, "authors' code; 4 at 64 pixels", auto=_by_side((48, 1)))
    classifier_lr: float = sourced(3e-4, "table 12", auto=_by_side((96, 1e-3)))
    classifier_decay: float = sourced(0.05, "table 12: weight decay")
    classifier_share: float = sourced(
        0.2, "papertrial default, of the budget; the paper's classifiers take an eighth to a fourth of the steps"
    )
    crop: float = sourced(0.64, "authors' code: least area of the square crops that the classifier sees")
    sampler: str = sourced("ddpm", "table 4; ddpm or ddim")
    eta: float = sourced(0.0, "authors' code; noise of ddim, where 1 is as much as ddpm has")
    draw_steps: int = sourced(250, "sec. 4; the steps of a drawing, evenly spaced", auto=_by_side((96, 50)))
    guidance: float = sourced(10.0, "table 4, of a U-Net that is given no class; 0.5 to 4 for one that is")
    pretrained: str = sourced(
        "", "papertrial default; files of the authors' weights, a U-Net and a classifier, separated by commas"
    )


# --- the chain of noise -----------------------------------------------------------------------------------------------


def betas(schedule: str, steps: int) -> np.ndarray:
    """float64 (T,): the variance of the noise of each step. Raises PapertrialError for another schedule than two."""
    if schedule == "linear":  # that of Ho et al. for 1000 steps, stretched
        return np.linspace(1e-4, 0.02, steps) * 1000 / steps
    if schedule == "cosine":
        kept = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - kept[1:] / kept[:-1], 0.999)
    raise PapertrialError(f"there is no schedule {schedule!r}", "choose schedule=linear or schedule=cosine")


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
        return _at(self.alpha_bar.sqrt(), t, x0) * x0 + _at((1 - self.alpha_bar).sqrt(), t, x0) * noise

    def posterior(self, x0: Tensor, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, C, H, W) and log variance (B, 1, 1, 1) of q(x_{t-1} | x_t, x_0)."""
        mean = _at(self.from_x0, t, x0) * x0 + _at(self.from_xt, t, xt) * xt
        return mean, _at(self.log_posterior, t, x0)

    def x0_of(self, xt: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return _at(self.alpha_bar.rsqrt(), t, xt) * xt - _at((1 / self.alpha_bar - 1).sqrt(), t, xt) * noise

    def noise_of(self, xt: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        return (_at(self.alpha_bar.rsqrt(), t, xt) * xt - x0) / _at((1 / self.alpha_bar - 1).sqrt(), t, xt)

    def predict(self, output: Tensor, xt: Tensor, t: Tensor, clip: bool = True) -> Predicted:
        """Read a network's output (B, 2 C, H, W): noise, and where between its bounds the log variance lies, -1 to 1."""
        noise, fraction = output.to(xt.dtype).chunk(2, 1)
        x0 = self.x0_of(xt, t, noise)
        x0 = x0.clamp(-1, 1) if clip else x0
        mean, least = self.posterior(x0, xt, t)
        return Predicted(mean, torch.lerp(least, _at(self.log_beta, t, xt), (fraction + 1) / 2), x0)

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


def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
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


def hybrid_terms(
    process: Process, output: Tensor, x0: Tensor, xt: Tensor, t: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) each: the squared error of the predicted noise, and the bound's term, whose gradient only the variances see."""
    guess, fraction = output.to(xt.dtype).chunk(2, 1)
    frozen = torch.cat([guess.detach(), fraction], 1)
    return (guess - noise).square().mean((1, 2, 3)), process.bound(process.predict(frozen, xt, t, clip=False), x0, xt, t)


# --- one step back ----------------------------------------------------------------------------------------------------


def ancestral_step(
    process: Process, found: Predicted, xt: Tensor, t: Tensor, noise: Tensor, gradient: Tensor | None = None
) -> Tensor:
    """x_{t-1} of DDPM. gradient: s grad log p(y | x_t), which moves the mean by the variance (algorithm 1)."""
    mean = found.mean if gradient is None else found.mean + found.log_variance.exp() * gradient
    return mean + (t > 0).view(-1, 1, 1, 1) * (0.5 * found.log_variance).exp() * noise


def ddim_step(
    process: Process,
    found: Predicted,
    xt: Tensor,
    t: Tensor,
    noise: Tensor,
    gradient: Tensor | None = None,
    eta: float = 0.0,
) -> Tensor:
    """x_{t-1} of DDIM, with `eta` of DDPM's noise. gradient: s grad log p(y | x_t), which is taken off the noise (algorithm 2)."""
    x0 = found.x0
    guess = process.noise_of(xt, t, x0)
    if gradient is not None:
        guess = guess - _at((1 - process.alpha_bar).sqrt(), t, xt) * gradient
        x0 = process.x0_of(xt, t, guess)
    kept, before = _at(process.alpha_bar, t, xt), _at(process.before, t, xt)
    spread = eta * ((1 - before) / (1 - kept) * (1 - kept / before)).sqrt()
    mean = before.sqrt() * x0 + (1 - before - spread.square()).clamp_min(0).sqrt() * guess
    return mean + (t > 0).view(-1, 1, 1, 1) * spread * noise


# --- the system -------------------------------------------------------------------------------------------------------


class Diffusion(nn.Module):
    """The first stage: a U-Net and the chain it undoes. `loss` of "image" (B, C, H, W) in [0, 1] and "label", with `views`."""

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__()
        self.config = config
        classes = facts.classes if config.class_cond else 0
        self.unet = UNet(_plan(config, facts, config.width, config.blocks), 2 * facts.channels, classes)
        self.process = Process(betas(config.schedule, config.steps))

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        image = flip(batch["image"], draw) if self.config.flips else batch["image"]
        noise = draw.normal(*image.shape[1:]).to(image.dtype)
        return {**batch, "image": image, "time": draw.integers(0, len(self.process) - 1), "noise": noise}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x0, t, noise = 2 * batch["image"] - 1, batch["time"], batch["noise"]
        xt = self.process.diffuse(x0, t, noise)
        output = self.unet(xt, self.process.time[t], batch["label"])
        error, bound = hybrid_terms(self.process, output, x0, xt, t, noise)
        weight = self.config.vlb * len(self.process)  # one step stands for all
        return {"loss": (error + weight * bound).mean(), "error": error.mean(), "bound": bound.mean()}


class NoisyClassifier(nn.Module):
    """The second stage: the class of an image at any step of the chain."""

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__()
        self.config = config
        plan = _plan(config, facts, config.classifier_width, config.classifier_blocks)
        level = len(config.multipliers) - 1
        places = side_at(facts.height, level) * side_at(facts.width, level)
        self.network = Classifier(plan, places, facts.classes)
        self.process = Process(betas(config.schedule, config.steps))

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        image = random_resized_crop(batch["image"], draw, (self.config.crop, 1.0), (1.0, 1.0))
        image = flip(image, draw) if self.config.flips else image
        noise = draw.normal(*image.shape[1:]).to(image.dtype)
        return {**batch, "image": image, "time": draw.integers(0, len(self.process) - 1), "noise": noise}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        t = batch["time"]
        logits = self.network(self.process.diffuse(2 * batch["image"] - 1, t, batch["noise"]), self.process.time[t])
        right = (logits.argmax(1) == batch["label"]).to(logits.dtype)
        return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": right.mean()}

    def gradient(self, xt: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """grad_{x_t} log p(label | x_t, time), (B, C, H, W); zero for rows whose label is -1."""
        with torch.enable_grad():
            xt = xt.detach().requires_grad_()
            found = self.network(xt, time).log_softmax(1).gather(1, label.clamp_min(0)[:, None])[:, 0]
            (slope,) = torch.autograd.grad(torch.where(label >= 0, found, 0.0).sum(), xt)
        return slope


class GuidedDiffusion(nn.Module):
    """U-Net and, where there are labels, the noisy classifier; `stages` trains one after the other, `draw` makes images.

    classes: what a label may be, 0 for none.  draws: the options that `draw` takes.
    """

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__()
        self.config, self.shape = config, (facts.channels, facts.height, facts.width)
        guided = facts.classes > 1 and facts.labelled > 0
        self.classes = facts.classes if guided else 0
        self.diffusion = Diffusion(config, facts)
        self.classifier = NoisyClassifier(config, facts) if guided else None
        options = {"steps", "start", "strength"} | ({"labels", "guidance"} if guided else set())
        self.draws = frozenset(options)

    def stages(self) -> list[Stage]:
        if self.classifier is None:
            return [Stage("diffusion", self.diffusion, 1.0)]
        share, own = self.config.classifier_share, self.config
        optim = {"lr": own.classifier_lr, "weight_decay": own.classifier_decay, "ema": 0.0}
        return [
            Stage("diffusion", self.diffusion, 1 - share),
            Stage("classifier", self.classifier, share, _labelled, optim),
        ]

    @torch.no_grad()
    def draw(
        self,
        seeds: Sequence[int],
        *,
        labels: Tensor | None = None,
        captions: Sequence[str] | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        start: Tensor | None = None,
        strength: float = 0.5,
        progress: Callable[[float], None] | None = None,
        sampler: str | None = None,
        eta: float | None = None,
    ) -> Tensor:
        """Images uint8 (n, C, H, W), one for each seed, which alone decides its noise.

        labels: int64 (n,), -1 for any.  guidance: the scale s of the classifier's gradient, 0 is none.  steps: of the chain,
        evenly spaced.  start: uint8 (n, C, H, W), images to begin with; strength: how much of the chain they are sent
        back, above 0 to 1, where 1 leaves next to nothing of them.  progress: called with the fraction that is done.
        sampler, eta: `ddpm` or `ddim` and its noise.  None is what the config says.
        Raises PapertrialError for an option that is out of range, or that the model has no part for.
        """
        own = self.config
        labels, scale = self._asked(len(seeds), labels, captions, guidance, start, strength)
        process = self.diffusion.process.respaced(spaced(own.draw_steps if steps is None else steps, own.steps))
        step = _sampler(own.sampler if sampler is None else sampler, own.eta if eta is None else eta)
        noise = _Noise(seeds, self.shape, next(self.parameters()))
        told = self._told(labels, noise)
        count = len(process) if start is None else max(1, round(strength * len(process)))
        x = noise()
        if start is not None:
            x0 = start.to(x.device) / 127.5 - 1
            x = process.diffuse(x0.to(x.dtype), torch.full((len(x),), count - 1, device=x.device), x)
        with evaluating(self):
            for place in reversed(range(count)):
                t = torch.full((len(x),), place, device=x.device)
                time = process.time[t]
                found = process.predict(self.diffusion.unet(x, time, told), x, t)
                gradient = scale * self.classifier.gradient(x, time, labels) if scale else None
                x = step(process, found, x, t, noise(), gradient)
                if progress is not None:
                    progress((count - place) / count)
        # DIFF: rounded, where the authors cut off
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def bits_per_dim(
        self, image: Tensor, label: Tensor | None = None, steps: int | None = None, seed: int = 0
    ) -> dict[str, Tensor]:
        """The variational bound of images uint8 (B, C, H, W), in bits per dimension: "total" and "prior" (B,), "steps" (B, T).

        steps: of the chain, evenly spaced; all where it is None.  seed: of the noise, one draw for each step.
        """
        process = self.diffusion.process.respaced(spaced(steps or self.config.steps, self.config.steps))
        generator = torch.Generator().manual_seed(seed)
        weight = next(self.parameters())
        x0 = (image.to(weight.device) / 127.5 - 1).to(weight.dtype)
        terms = []
        with torch.no_grad(), evaluating(self):
            for place in range(len(process)):
                t = torch.full((len(x0),), place, device=x0.device)
                xt = process.diffuse(x0, t, torch.randn(x0.shape, generator=generator).to(x0))
                found = process.predict(self.diffusion.unet(xt, process.time[t], label), xt, t)
                terms.append(process.bound(found, x0, xt, t))
        each, prior = torch.stack(terms, 1), process.prior(x0)
        return {"total": each.sum(1) + prior, "prior": prior, "steps": each}

    def _asked(
        self,
        count: int,
        labels: Tensor | None,
        captions: Sequence[str] | None,
        guidance: float | None,
        start: Tensor | None,
        strength: float,
    ) -> tuple[Tensor, float]:
        """Labels, -1 where there is none, and the scale, 0 where no row is guided; raises PapertrialError."""
        if captions is not None:
            raise PapertrialError("guided_diffusion reads no captions", "ask for a label")
        if not self.classes and (labels is not None or guidance):
            raise PapertrialError("this model was trained without labels, so nothing guides it", "leave label and guidance out")
        if start is not None and (tuple(start.shape) != (count, *self.shape) or not 0 < strength <= 1):
            raise PapertrialError(
                f"to start from images takes {count} of {self.shape} and a strength above 0 and at most 1, "
                f"and there are {tuple(start.shape)} and {strength}"
            )
        device = next(self.parameters()).device
        held = torch.full((count,), -1) if labels is None else torch.as_tensor(labels, dtype=torch.int64)
        if held.shape != (count,) or bool((held < -1).any()) or bool((held >= max(self.classes, 1)).any()):
            raise PapertrialError(f"labels are one of 0 to {self.classes - 1}, or -1, for each of {count} images")
        scale = self.config.guidance if guidance is None else guidance
        return held.to(device), float(scale) if bool((held >= 0).any()) and self.classifier is not None else 0.0

    def _told(self, labels: Tensor, noise: _Noise) -> Tensor:
        """What a U-Net with classes is told: where nothing was asked for, a class that the row's seed draws."""
        if not self.diffusion.unet.classes:
            return labels
        return torch.where(labels < 0, noise.integers(self.classes).to(labels), labels)


class _Noise:
    """Numbers that each row draws from a generator of its own, on the CPU, so that no row depends on the others."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], like: Tensor) -> None:
        self.shape, self.like = shape, like
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(self) -> Tensor:
        """(n, *shape), standard normal."""
        return torch.stack([torch.randn(self.shape, generator=each) for each in self.generators]).to(self.like)

    def integers(self, high: int) -> Tensor:
        """int64 (n,) from 0 to high - 1."""
        return torch.cat([torch.randint(high, (1,), generator=each) for each in self.generators])


def _sampler(name: str, eta: float) -> Callable[..., Tensor]:
    if name == "ddpm":
        return ancestral_step
    if name != "ddim" or not 0 <= eta <= 1:
        raise PapertrialError(
            f"the sampler {name!r} with eta {eta} is not known", "choose sampler=ddpm, or sampler=ddim with eta from 0 to 1"
        )
    return lambda *given: ddim_step(*given, eta=eta)


def _labelled(split: Split) -> Split:
    known = np.asarray(split["label"]) >= 0
    return split if known.all() else split.take(np.flatnonzero(known))


def _plan(config: Config, facts: Facts, width: int, blocks: int) -> Plan:
    levels = range(len(config.multipliers))
    attention = tuple(level for level in levels if side_at(_side(facts), level) <= config.attention)
    return Plan(
        facts.channels, width, config.multipliers, blocks, attention, config.heads, config.head_width, config.qkv_first,
        config.groups, config.dropout,
    )  # fmt: skip


def licence(config: Config) -> str:
    """Whose weights training starts from."""
    return f"those of {config.pretrained}" if config.pretrained else "fresh weights: yours"


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> GuidedDiffusion:
    """Raises Declined for images that are too small for two levels."""
    if min(facts.height, facts.width) < 4:
        raise Declined(
            f"guided_diffusion needs images of at least 4 pixels a side, and these are {facts.height} x {facts.width}",
            "give a larger --size",
        )
    model = GuidedDiffusion(config, facts)
    if config.pretrained:
        checkpoints.start_from(model, config.pretrained)
    return model


def _size(width: int, multipliers: tuple[float, ...], blocks: int, **others: Any) -> dict[str, Any]:
    common = {"attention": 32, "groups": 32, "head_width": 64, "class_cond": True, "schedule": "linear"}
    classifier = {"classifier_width": 128, "classifier_blocks": 2}
    return {"width": width, "multipliers": multipliers, "blocks": blocks} | common | classifier | others


#: table 11, and the flags of the published models
variants = {
    "64": _size(
        192, (1, 2, 3, 4), 3, dropout=0.1, schedule="cosine", qkv_first=True, classifier_blocks=4, guidance=1.0
    ),
    "128": _size(256, (1, 1, 2, 3, 4), 2, heads=4, guidance=0.5),
    "256": _size(256, (1, 1, 2, 2, 4, 4), 2, guidance=1.0),
    "256-uncond": _size(256, (1, 1, 2, 2, 4, 4), 2, class_cond=False, guidance=10.0),
    "512": _size(256, (0.5, 1, 1, 2, 2, 4, 4), 2, guidance=4.0),
}

recipes = {
    "paper": Recipe(
        "paper",
        config=variants["256"],
        optim={"lr": 1e-4, "weight_decay": 0.0, "batch": 256, "clip": 0.0, "schedule": "constant", "warmup": 0.0, "ema": 0.9999},
        budget=Budget(samples=256 * 1_980_000),
        source="table 11, ImageNet at 256 x 256; the classifier's learning rate is constant here and annealed there",
        cost="hundreds of days of a GPU",
        expect="FID 4.59 with guidance (table 5)",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 1e-3, "weight_decay": 0.0, "batch": 64, "ema": 0.999},
        source="chosen on MNIST at 16 x 16",
        cost="5 to 30 minutes on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        config={"width": 16, "multipliers": (1, 2), "blocks": 1, "groups": 4, "head_width": 16, "classifier_width": 16, "draw_steps": 10},
        optim={"lr": 3e-3, "weight_decay": 0.0, "batch": 32, "ema": 0.99},
        budget=Budget(steps=120),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}


# --- claims -----------------------------------------------------------------------------------------------------------

#: scales of guidance that are tried, and pictures that each draws
_SCALES = (0, 1, 2, 5, 10)


@dataclass(frozen=True)
class _Effort:
    """Steps of the two stages together, of which `Config.classifier_share` are the classifier's; pictures; steps of a walk."""

    recipe: str
    steps: int
    batch: int
    pictures: int
    walk: int


_EFFORT = {"tiny": _Effort("tiny", 200, 32, 64, 10), "base": _Effort("base", 1500, 32, 400, 25)}


@cache
def _data(scale: str, seed: int) -> Prepared:
    """MNIST at 16 x 16 where it is at hand, scikit-learn's digits elsewhere and at the smallest scale."""
    task = registry.task("image_generation")
    try:
        data, size = open_data(str(at_hand("images/mnist"))) if scale != "tiny" else None, 16
    except Declined:
        data = None
    return task.prepare(data or open_data("digits"), seed, size=size if data else None)


def _learned(name: str, scale: str, seed: int, steps: int) -> tuple[Any, float]:
    """A method after so many steps, and the CPU seconds they took."""
    task, method, prepared, effort = registry.task("image_generation"), registry.method(name), _data(scale, seed), _EFFORT[scale]
    recipe = method.module.recipes[effort.recipe]
    config, _ = resolve(method.module.Config, prepared.facts, {effort.recipe: recipe.config})
    optim, _ = resolve(Optim, prepared.facts, {effort.recipe: recipe.optim, "claim": {"batch": effort.batch}})
    torch.manual_seed(seed)
    model = task.build(method, config, optim, prepared)
    rows, begun = task.training(model, prepared), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        given = (model, rows, optim, Budget(steps=steps), Run(folder))
        (train_stages if hasattr(model, "stages") else train)(*given, seed=seed, progress=False)
    return model, time.process_time() - begun


@cache
def _guided(scale: str, seed: int) -> tuple[GuidedDiffusion, float]:
    return _learned("guided_diffusion", scale, seed, _EFFORT[scale].steps)


@cache
def _rival(scale: str, seed: int) -> tuple[Any, float]:
    """The convolutional GAN, after as many CPU seconds as both stages took."""
    seconds, pilot = _guided(scale, seed)[1], 20
    each = _learned("gan", scale, seed, pilot)[1] / pilot
    return _learned("gan", scale, seed, max(pilot, round(seconds / each)))


@cache
def _scores(scale: str, seed: int, guidance: float | None, part: str = "test") -> dict[str, float]:
    """Figures of pictures drawn at a scale of guidance, or by the GAN where it is None, against the test or validation rows."""
    prepared, effort = _data(scale, seed), _EFFORT[scale]
    drawn = _pictures(scale, seed, guidance)
    split = getattr(prepared, part)
    scores = picture_scores(drawn, np.asarray(split["image"]), Measures.find(prepared.state["measures"]))
    return scores.metrics


@cache
def _pictures(scale: str, seed: int, guidance: float | None) -> Drawn:
    """By seeds that stay the same, of as many of each class."""
    effort = _EFFORT[scale]
    asked = np.arange(effort.pictures) % _data(scale, seed).facts.classes
    if guidance is None:
        return Drawn.of(draw(_rival(scale, seed)[0], range(effort.pictures), labels=asked), asked)
    model = _guided(scale, seed)[0]
    return Drawn.of(
        draw(model, range(effort.pictures), labels=asked, guidance=guidance, steps=effort.walk), asked
    )


def _curve(scale: str, seed: int, *names: str) -> dict[str, float]:
    found = {at: _scores(scale, seed, at) for at in _SCALES}
    return {f"{name}_{at}": found[at][name] for name in names for at in _SCALES}
