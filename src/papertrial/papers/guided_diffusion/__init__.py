"""Guided diffusion (ADM) - images out of noise, step by step, steered by the gradient of a classifier.

Prafulla Dhariwal, Alex Nichol. NeurIPS 2021, arXiv 2105.05233. Learned variances and the cosine schedule are those of
Alex Nichol, Prafulla Dhariwal: Improved Denoising Diffusion Probabilistic Models, ICML 2021, arXiv 2102.09672.

The idea
    Noise is added to an image in many small steps until nothing else is left. A U-Net learns to undo one step, and from pure
    noise it walks all the way back to an image. A second network learns to name the class of images at every level of noise;
    moved along its gradient, each step of the walk becomes one towards a class. A larger scale of that gradient gives images
    that are more typical and less varied.

The equation
    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)                            (2102.09672, eq. 8)
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
    guidance scale, number of steps, from an image), `bits_per_dim`; `checkpoints` reads the authors' weights. With `low`
    it is a cascade (ADM-U): a model of small images, guided, and an upsampler that is shown them.

Relations
    DDPM (Ho et al. 2020) with learned variances, DDIM's sampler (Song et al. 2020), the up and down blocks of BigGAN. SDEdit's
    start from an image.

Try
    papertrial fit guided_diffusion --data photos/ --budget 30m
    papertrial generate runs/guided_diffusion-photos --label cat --guidance 4
    papertrial fit guided_diffusion --data photos/ --size 32 --set low=16 --budget 30m --out runs/cascade

Cost
    tiny: seconds on a CPU. base: 5 to 30 minutes on a CPU for images of 16 to 28 pixels. paper: 256 x 256, hundreds of GPU days.

Notation
    B batch, C channels, H and W sides, T steps of the chain, t a step from 0, x_0 images in [-1, 1], eps the noise that made x_t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.core.task import Split, Stage
from papertrial.nn.modes import evaluating
from papertrial.nn.views import Draw, flip, random_resized_crop
from papertrial.papers.guided_diffusion import checkpoints
from papertrial.papers.guided_diffusion.chain import Process, betas, spaced
from papertrial.papers.guided_diffusion.unet import Classifier, Plan, UNet, side_at
from papertrial.papers.guided_diffusion.walk import (
    Noise,
    as_bytes,
    enlarged,
    low_size,
    sampler_step,
    shrunk,
)

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
        "The unguided models of the paper are still given the class; a guidance of 0 is not a model without labels "
        "(guided-diffusion#3). Here the U-Net is given none unless class_cond is set.",
        "The authors' code does not say what its flags must be for a checkpoint: predicted variances double the output, and a "
        "class table, the heads and the order of queries and keys must fit (guided-diffusion#60, ilvr_adm#27).",
        "The authors' code does not say what training costs, which many ask (guided-diffusion#67): the paper's table 10 does, 1914 "
        "days of a V100 for 512 x 512.",
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


@checked
@dataclass(frozen=True)
class Config:
    width: int = sourced(256, "authors' README; 192 at 64 pixels", "[2, 65536]", auto=_by_side((48, 32), (96, 64)))
    multipliers: tuple[float, ...] = sourced(
        (1, 1, 2, 2, 4, 4),
        "authors' code, 256 pixels",
        "1 to 10 of [0.5, 64]",
        auto=_by_side((12, (1, 2)), (20, (1, 1, 2)), (48, (1, 2, 2)), (96, (1, 2, 3, 4)), (128, (1, 1, 2, 3, 4))),
    )
    blocks: int = sourced(2, "authors' README; 3 at 64 pixels", "[1, 100]", auto=_by_side((48, 1)))
    attention: int = sourced(
        32,
        "authors' README: 32, 16, 8; longest side that has it",
        "[0, 4096]",
        auto=_by_side((20, 8), (48, 14), (96, 16)),
    )
    heads: int = sourced(0, "authors' README; 4 at 128 pixels, and 0 is as many as head_width gives", "[0, 1024]")
    head_width: int = sourced(64, "authors' README: channels of a head", "[1, 4096]", auto=_by_side((96, 32)))
    qkv_first: bool = sourced(False, "authors' README; true at 64 pixels (use_new_attention_order)")
    groups: int = sourced(
        32,
        "authors' code: of every norm; 8 in narrow networks, where groups of one channel would wipe out how bright an image is",
        "[1, 1024]",
        auto=_by_side((96, 8)),
    )
    dropout: float = sourced(0.0, "authors' README; 0.1 at 64 pixels", "[0, 1)")
    class_cond: bool = sourced(
        False, "table 4 has both; here guidance alone names the class, so that images without a label are drawn too"
    )
    steps: int = sourced(1000, "authors' README", "[1, 100000]")
    noise_schedule: str = sourced("linear", "authors' README", "linear | cosine", auto=_by_side((64, "cosine")))
    vlb: float = sourced(0.001, "2102.09672, eq. 16: lambda, the weight of the bound", "[0, 1000]")
    flips: bool = sourced(True, "authors' code", auto=lambda facts: facts.channels == 3)
    classifier_width: int = sourced(128, "authors' code", "[2, 65536]", auto=_by_side((48, 32), (96, 64)))
    classifier_blocks: int = sourced(2, "authors' README; 4 at 64 pixels", "[1, 100]", auto=_by_side((48, 1)))
    classifier_lr: float = sourced(3e-4, "authors' README", "[1e-9, 1000]", auto=_by_side((96, 2e-3)))
    classifier_decay: float = sourced(0.05, "authors' README: weight decay", "[0, 100]")
    classifier_share: float = sourced(
        0.2, "papertrial default, of the budget: a step of the classifier costs a third of one of the U-Net", "(0, 1)"
    )
    crop: float = sourced(0.64, "authors' code: least area of the square crops that the classifier sees", "(0, 1]")
    low: int = sourced(
        0,
        "table 5, ADM-U: 64 below 256 pixels, 128 below 512; longest side of the images that an upsampler enlarges, 0 is none",
        "[0, 4096]",
    )
    upsampler_width: int = sourced(192, "authors' README", "[2, 65536]", auto=_by_side((48, 32), (96, 64)))
    upsampler_schedule: str = sourced("linear", "authors' README", "linear | cosine", auto=_by_side((64, "cosine")))
    upsampler_share: float = sourced(0.5, "papertrial default, of the budget that the classifier leaves", "(0, 1)")
    sampler: str = sourced("ddpm", "authors' README", "ddpm | ddim")
    eta: float = sourced(0.0, "authors' code; noise of ddim, where 1 is as much as ddpm has", "[0, 1]")
    draw_steps: int = sourced(
        250, "authors' README; evenly spaced", "[1, 100000], at most steps", auto=_by_side((96, 50))
    )
    guidance: float = sourced(10.0, "authors' README, of a U-Net without class; 0.5 to 4 with one", "[0, 1000]")
    pretrained: str = sourced(
        "", "papertrial default; files of the authors' weights, a U-Net and a classifier, separated by commas", "any"
    )


# --- the loss -------------------------------------------------------------------------------------


def hybrid_terms(
    process: Process, output: Tensor, x0: Tensor, xt: Tensor, t: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) each: the squared error of the predicted noise, and the bound's term, whose gradient only the variances see."""
    guess, fraction = output.to(xt.dtype).chunk(2, 1)
    frozen = torch.cat([guess.detach(), fraction], 1)
    return (guess - noise).square().mean((1, 2, 3)), process.bound(
        process.predict(frozen, xt, t, clip=False), x0, xt, t
    )


# --- the system -------------------------------------------------------------------------------------------------------


class Diffusion(nn.Module):
    """A U-Net and the chain it undoes. `loss` of "image" (B, C, H, W) in [0, 1] and "label", with `views`.

    small: height and width of the images it learns, where they are not those of the data; those an upsampler is shown.
    upsamples: whether it is one, and learns the images of the data.
    """

    def __init__(
        self, config: Config, unet: UNet, small: tuple[int, int] | None = None, upsamples: bool = False
    ) -> None:
        super().__init__()
        self.config, self.unet, self.small, self.upsamples = config, unet, small, upsamples
        schedule = config.upsampler_schedule if upsamples else config.noise_schedule
        self.process = Process(betas(schedule, config.steps))

    def guess(self, xt: Tensor, time: Tensor, label: Tensor | None, low: Tensor | None = None) -> Tensor:
        """The network's output for x_t at steps of its chain.  low: in [-1, 1], what an upsampler is shown beside x_t."""
        return self.unet(
            xt if low is None else torch.cat([xt, enlarged(low, xt.shape[2:]).to(xt.dtype)], 1), time, label
        )

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        image = flip(batch["image"], draw) if self.config.flips else batch["image"]
        image = shrunk(image, self.small) if self.small and not self.upsamples else image
        noise = draw.normal(*image.shape[1:]).to(image.dtype)
        return {**batch, "image": image, "time": draw.integers(0, len(self.process) - 1), "noise": noise}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x0, t, noise = 2 * batch["image"] - 1, batch["time"], batch["noise"]
        xt = self.process.diffuse(x0, t, noise)
        low = shrunk(x0, self.small) if self.upsamples and self.small else None
        output = self.guess(xt, self.process.time[t], batch["label"], low)
        error, bound = hybrid_terms(self.process, output, x0, xt, t, noise)
        weight = self.config.vlb * len(self.process)  # one step stands for all
        return {"loss": (error + weight * bound).mean(), "error": error.mean(), "bound": bound.mean()}


class NoisyClassifier(nn.Module):
    """The last stage: the class of an image at any step of the chain.  small: as of the model it guides."""

    def __init__(self, config: Config, network: Classifier, small: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.config, self.network, self.small = config, network, small
        self.process = Process(betas(config.noise_schedule, config.steps))

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        image = random_resized_crop(batch["image"], draw, (self.config.crop, 1.0), (1.0, 1.0))
        image = flip(image, draw) if self.config.flips else image
        image = shrunk(image, self.small) if self.small else image
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

    shape: (C, H, W) of the images.  upsampler: of a cascade, whose first U-Net and classifier have images of `config.low`.
    classes: how many a label may name, 0 for none.  draws: the options that `draw` takes.
    """

    def __init__(
        self,
        config: Config,
        shape: tuple[int, int, int],
        unet: UNet,
        network: Classifier | None = None,
        upsampler: UNet | None = None,
    ) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        small = low_size(config.low, shape[1:]) if upsampler else None
        self.first = (shape[0], *(small or shape[1:]))  # of the images that come out of noise alone
        self.diffusion = Diffusion(config, unet, small)
        self.classifier = NoisyClassifier(config, network, small) if network else None
        self.upsampler = Diffusion(config, upsampler, small, upsamples=True) if upsampler else None
        self.classes = network.classes if network else unet.classes
        named = {"labels"} if self.classes else set()
        self.draws = frozenset({"steps", "start", "strength"} | named | ({"guidance"} if network else set()))

    def stages(self) -> list[Stage]:
        own = self.config
        share = own.classifier_share if self.classifier else 0.0
        above = own.upsampler_share * (1 - share) if self.upsampler else 0.0
        stages = [Stage("diffusion", self.diffusion, 1 - share - above)]
        if self.upsampler:
            stages.append(Stage("upsampler", self.upsampler, above))
        if self.classifier:
            optim = {"lr": own.classifier_lr, "weight_decay": own.classifier_decay, "ema": 0.0}
            stages.append(Stage("classifier", self.classifier, share, _labelled, optim))
        return stages

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
        evenly spaced; of each chain of a cascade, whose upsampler is not guided.  start: uint8 (n, C, H, W), images to begin
        with; strength: how much of the chain they are sent back, above 0 to 1, where 1 leaves next to nothing of them.
        progress: called with the fraction that is done.
        sampler, eta: `ddpm` or `ddim` and its noise.  None is what the config says.
        Raises PapertrialError for an option that is out of range, or that the model has no part for.
        """
        own = self.config
        labels, scale = self._asked(len(seeds), labels, captions, guidance, start, strength)
        times = spaced(own.draw_steps if steps is None else steps, own.steps)
        process = self.diffusion.process.respaced(times)
        step = sampler_step(own.sampler if sampler is None else sampler, own.eta if eta is None else eta)
        noise = Noise(seeds, self.first, next(self.parameters()))
        told = self._told(labels, noise)
        count = len(process) if start is None else max(1, round(strength * len(process)))
        walks = count + (len(times) if self.upsampler else 0)
        x = noise()
        if start is not None:
            x0 = (start.to(x.device) / 127.5 - 1).to(x.dtype)
            x0 = shrunk(x0, self.first[1:]) if self.upsampler else x0
            x = process.diffuse(x0, torch.full((len(x),), count - 1, device=x.device), x)
        with evaluating(self):
            for place in reversed(range(count)):
                t = torch.full((len(x),), place, device=x.device)
                time = process.time[t]
                found = process.predict(self.diffusion.guess(x, time, told), x, t)
                gradient = scale * self.classifier.gradient(x, time, labels) if scale and self.classifier else None
                x = step(process, found, x, t, noise(), gradient)
                if progress is not None:
                    progress((count - place) / walks)
            if self.upsampler is not None:
                tell = None if progress is None else lambda done: progress((count + done * len(times)) / walks)
                x = self._enlarged(self.upsampler, as_bytes(x), noise, told, times, step, tell)
        return as_bytes(x, scale)

    @torch.no_grad()
    def upsample(
        self, seeds: Sequence[int], low: Tensor, *, labels: Tensor | None = None, steps: int | None = None
    ) -> Tensor:
        """Images uint8 (n, C, H, W) of a cascade that are these made larger: low uint8 (n, C, h, w), as `shrunk` makes them.

        Raises PapertrialError for a model without an upsampler, and for images of another size.
        """
        own = self.config
        if self.upsampler is None or tuple(low.shape) != (len(seeds), *self.first):
            size = "nothing" if self.upsampler is None else f"{len(seeds)} images of {self.first}"
            raise PapertrialError(
                f"this model enlarges {size}, and there are {tuple(low.shape)}", "train it with --set low="
            )
        held, _ = self._asked(len(seeds), labels, None, 0.0, None, 1.0)
        noise = Noise(seeds, self.first, next(self.parameters()))
        times, step = spaced(own.draw_steps if steps is None else steps, own.steps), sampler_step(own.sampler, own.eta)
        with evaluating(self):
            return as_bytes(
                self._enlarged(self.upsampler, low.to(held.device), noise, self._told(held, noise), times, step, None)
            )

    def _enlarged(
        self,
        upsampler: Diffusion,
        low: Tensor,
        noise: Noise,
        told: Tensor,
        times: np.ndarray,
        step: Callable[..., Tensor],
        tell: Callable[[float], None] | None,
    ) -> Tensor:
        """x_0 of the upsampler's walk, which is shown bytes (n, C, h, w) at each step."""
        process, noise.shape = upsampler.process.respaced(times), self.shape
        x = noise()
        for place in reversed(range(len(process))):
            t = torch.full((len(x),), place, device=x.device)
            found = process.predict(upsampler.guess(x, process.time[t], told, low / 127.5 - 1), x, t)
            x = step(process, found, x, t, noise())
            if tell is not None:
                tell(1 - place / len(process))
        return x

    def bits_per_dim(
        self, image: Tensor, label: Tensor | None = None, steps: int | None = None, seed: int = 0
    ) -> dict[str, Tensor]:
        """The variational bound of images uint8 (B, C, H, W), in bits per dimension: "total" and "prior" (B,), "steps" (B, T).

        steps: of the chain, evenly spaced; all where it is None.  seed: of the noise, one draw for each step.
        Raises Declined for a cascade, whose two bounds are of different images.
        """
        if self.upsampler is not None:
            raise Declined(
                "a cascade has no bound of its own: its two models are of images of two sizes", "leave low out"
            )
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
        if (labels is not None and not self.classes) or (guidance and self.classifier is None):
            raise PapertrialError("this model has no classifier to guide it", "leave guidance, or the label, out")
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
        return held.to(device), float(scale) if bool((held >= 0).any()) else 0.0

    def _told(self, labels: Tensor, noise: Noise) -> Tensor:
        """What a U-Net with classes is told: where nothing was asked for, a class that the row's seed draws."""
        if not self.diffusion.unet.classes:
            return labels
        return torch.where(labels < 0, noise.integers(self.classes).to(labels), labels)


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
    return f"those of {config.pretrained}" if config.pretrained else "fresh weights, so they are yours"


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> GuidedDiffusion:
    """Raises Declined for images that are too small for two levels, PapertrialError for a cascade that enlarges nothing."""
    shape = facts.channels, facts.height, facts.width
    upsampler, full = None, facts
    if config.low:
        if config.low >= _side(facts):
            raise PapertrialError(f"low is {config.low}, and the images are {facts.height} x {facts.width}", "halve it")
        height, width = low_size(config.low, shape[1:])
        facts = replace(facts, height=height, width=width)
    if min(facts.height, facts.width) < 4:
        raise Declined(
            f"guided_diffusion needs images of at least 4 pixels a side, and these are {facts.height} x {facts.width}",
            "give a larger --set low=" if config.low else "give a larger --size",
        )
    guided = facts.classes > 1 and facts.labelled > 0
    told = facts.classes if guided and config.class_cond else 0
    unet = UNet(_plan(config, facts, config.width, config.blocks), 2 * facts.channels, told)
    network = None
    if guided:
        level = len(config.multipliers) - 1
        places = side_at(facts.height, level) * side_at(facts.width, level)
        plan = _plan(config, facts, config.classifier_width, config.classifier_blocks)
        network = Classifier(plan, places, facts.classes)
    if config.low:
        plan = _plan(config, full, config.upsampler_width, config.blocks)
        upsampler = UNet(replace(plan, channels=2 * facts.channels), 2 * facts.channels, told)
    for file in config.pretrained.split(",") if config.pretrained else ():
        checkpoints.start_from(unet, network, file.strip(), upsampler)
    return GuidedDiffusion(config, shape, unet, network, upsampler)


def load(*files: Path | str, side: int | None = None, schedule: str | None = None, **known: Any) -> GuidedDiffusion:
    """The authors' U-Net, and their classifier and upsampler where their files are given too, ready to `draw`.

    side, schedule: of the images that come out of noise, and of their chain, known of the published models.  known: see
    `checkpoints.plan_of`.  Raises PapertrialError for what must be told, for files that do not go together, and for an
    upsampler alone.
    """
    networks = [checkpoints.load(file, **known) for file in files]
    upsamplers = [network for network in networks if isinstance(network, UNet) and network.upsamples]
    unets = [network for network in networks if isinstance(network, UNet) and not network.upsamples]
    unets, upsamplers = (unets, upsamplers) if unets else (upsamplers, [])
    classifiers = [network for network in networks if isinstance(network, Classifier)]
    if len(unets) != 1 or len(classifiers) > 1 or len(upsamplers) > 1:
        raise PapertrialError(
            f"there are {len(unets)} U-Nets, {len(classifiers)} classifiers and {len(upsamplers)} upsamplers",
            "give one U-Net, and one or none of the others",
        )
    unet, channels = unets[0], unets[0].plan.channels
    if unet.channels_out != 2 * channels:
        raise PapertrialError(
            f"{files[0]} takes {channels} channels and gives {unet.channels_out}, so it draws no images out of noise alone",
            "only models that predict variances (learn_sigma) draw, and upsamplers beside one; checkpoints.load gives the network",
        )
    flags = checkpoints.flags_of(unet.plan)
    side, schedule = side or flags.get("side"), schedule or flags.get("schedule")
    if side is None or schedule is None:
        raise PapertrialError(
            "this is none of the published models, so weights alone do not tell what it draws",
            "give side= and schedule=",
        )
    config = Config(noise_schedule=schedule, class_cond=unet.classes > 0, guidance=1.0 if unet.classes else 10.0)
    network = classifiers[0] if classifiers else None
    if not upsamplers:
        return GuidedDiffusion(config, (channels, side, side), unet, network).eval()
    above = checkpoints.flags_of(upsamplers[0].plan)
    full = above.get("side", 4 * side)
    config = replace(config, low=side, upsampler_schedule=above.get("schedule", "linear"))
    return GuidedDiffusion(config, (channels, full, full), unet, network, upsamplers[0]).eval()


def _size(width: int, multipliers: tuple[float, ...], blocks: int, **others: Any) -> dict[str, Any]:
    common = {"attention": 32, "groups": 32, "head_width": 64, "class_cond": True, "noise_schedule": "linear"}
    classifier = {"classifier_width": 128, "classifier_blocks": 2}
    return {"width": width, "multipliers": multipliers, "blocks": blocks} | common | classifier | others


#: flags of the published models, authors' README
variants = {
    "64": _size(
        192, (1, 2, 3, 4), 3, dropout=0.1, noise_schedule="cosine", qkv_first=True, classifier_blocks=4, guidance=1.0
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
        optim={
            "lr": 1e-4,
            "weight_decay": 0.0,
            "batch": 256,
            "clip": 0.0,
            "schedule": "constant",
            "warmup": 0.0,
            "ema": 0.9999,
        },
        budget=Budget(samples=256 * 1_980_000),
        source="appendix and authors' README, 256 x 256; the classifier's learning rate is constant here and annealed there",
        cost="hundreds of days of a GPU",
        expect="FID 4.59 with guidance (table 5)",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 2e-3, "weight_decay": 0.0, "batch": 64, "ema": 0.999},
        source="chosen on MNIST at 16 x 16",
        cost="5 to 30 minutes on a CPU",
    ),
    "tiny": Recipe(
        "tiny",
        config={
            "width": 16,
            "multipliers": (1, 2),
            "blocks": 1,
            "groups": 4,
            "head_width": 16,
            "classifier_width": 16,
            "draw_steps": 8,
        },
        optim={"lr": 3e-3, "weight_decay": 0.0, "batch": 32, "ema": 0.99},
        budget=Budget(steps=80),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
