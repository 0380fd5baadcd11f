"""GAN - a convolutional generator against a discriminator with bounded slopes: what generators are compared with.

Ian Goodfellow et al., NeurIPS 2014, arXiv 1406.2661. As trained here: Takeru Miyato et al., ICLR 2018, arXiv 1802.05957 (spectral
normalisation) and Takeru Miyato, Masanori Koyama, ICLR 2018, arXiv 1802.05637 (classes by projection).

The idea
    One network draws pictures from noise, another tells them from real ones, and each learns from the other.

The equation
    L_D = E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))),   L_G = -E D(G(z)),   D(x, y) = v . f(x) + e_y . f(x)

What matters
    Every weight of D is divided by its largest singular value, which keeps D from winning outright, and every layer multiplied by
    `gain`: one that is too flat sees no difference between many pictures and one. D learns faster than G.
    Both take one step at once: the loss is the sum of two, and each sees the weights of the other as constants, so that a
    step is that of two optimisers side by side. Its value says nothing of the pictures.

Requires / Offers
    Requires images; classes where there are labels. Offers generate, of a class that is asked for.

Relations
    The reference that guided_diffusion must beat on the same images.

Try
    papertrial fit gan --data photos/ --budget 5m

Cost
    tiny: seconds on a CPU. base: minutes on a CPU for images of 16 to 32 pixels.

Notation
    B batch, Z numbers of noise, C channels, x real pictures, z noise, y classes, f the features of D, e_y and v learnt.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from papertrial.core.budget import Budget
from papertrial.core.facts import Facts
from papertrial.core.paper import Paper
from papertrial.core.recipe import Optim, Recipe, checked, sourced
from papertrial.nn.ranks import BatchNorm
from papertrial.nn.views import Draw

PAPER = Paper(
    id="gan",
    title="Spectral Normalization for Generative Adversarial Networks",
    kind="architecture",
    method="Gan",
    idea="A convolutional generator against a discriminator with spectral norm, by the hinge loss.",
    authors="Takeru Miyato, Toshiki Kataoka, Masanori Koyama, Yuichi Yoshida",
    year=2018,
    arxiv="1802.05957",
    tasks=("image_generation",),
    tags=("vision", "generative", "convolution"),
    caveats=(
        "The loss of a GAN says nothing of its pictures: neither that of G nor that of D goes down when they get better.",
        "The authors' code takes five steps of the discriminator for each of the generator; here both take one, and the "
        "generator learns at half the rate (two rates: Heusel et al. 2017).",
    ),
)


@checked
@dataclass(frozen=True)
class Config:
    noise: int = sourced(
        128,
        "1802.05957, appendix B.4, the CNN for CIFAR-10",
        "[1, 65536]",
        auto=lambda facts: 32 if _small(facts) else None,
    )
    width: int = sourced(
        64,
        "1802.05957, appendix B.4, the CNN for CIFAR-10: channels at full size, doubled where the side is halved",
        "[1, 8192]",
        auto=lambda facts: 16 if _small(facts) else 32 if facts.height <= 40 else None,
    )
    widest: int = sourced(
        512,
        "1802.05957, appendix B.4, the CNN for CIFAR-10",
        "[1, 8192]",
        auto=lambda facts: 64 if _small(facts) else 256 if facts.height <= 40 else None,
    )
    gain: float = sourced(
        2.0,
        "scaled spectral norm, Lin, Sekar and Fanti 2021 (2009.02773; their code tries 0.7 to 4 on CIFAR-10); 2 was chosen here: with "
        "1, as in 1802.05957, a discriminator of so few layers is too flat to see that the pictures of a class are all alike",
        "(0, 100]",
    )
    beta1: float = sourced(
        0.5, "1802.05957, as the settings that the code of 2009.02773 (fjxmlzn/BSN) takes over from it", "[0, 1)"
    )
    slower: float = sourced(
        0.5, "rate of the generator, as a share of the discriminator's (lr); chosen on MNIST at 16 pixels", "(0, 100]"
    )


def _small(facts: Facts) -> bool:
    return 0 < max(facts.height, facts.width) <= 20


class Generator(nn.Module):
    """Noise (B, Z) and classes int64 (B,) -> pictures (B, C, H, W) in [0, 1]. Sides that no power of two divides are cut."""

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__()
        self.size = (facts.height, facts.width)
        halvings = _halvings(facts)
        self.start = tuple(-(-side // 2**halvings) for side in self.size)
        widths = [min(config.width * 2**level, config.widest) for level in range(halvings, -1, -1)]
        self.classes = nn.Embedding(max(1, facts.classes), config.noise)
        self.enter = nn.Linear(2 * config.noise, widths[0] * self.start[0] * self.start[1], bias=False)
        self.norm = BatchNorm(widths[0])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2),
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                BatchNorm(outputs),
                nn.ReLU(),
            )
            for inputs, outputs in itertools.pairwise(widths)
        )
        self.leave = nn.Conv2d(widths[-1], facts.channels, 3, padding=1)

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        x = self.enter(torch.cat([noise, self.classes(label)], 1)).unflatten(1, (-1, *self.start))
        x = F.relu(self.norm(x))
        for block in self.blocks:
            x = block(x)
        return torch.sigmoid(self.leave(x)[..., : self.size[0], : self.size[1]])


class Rise(nn.Module):
    """Leaky ReLU times `gain`: how steep a layer may be whose weight has the norm 1."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * F.leaky_relu(x, 0.1)


class Discriminator(nn.Module):
    """Pictures (B, C, H, W) in [0, 1] and classes int64 (B,), -1 = unknown -> (B,), above 0 where they look real."""

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, inputs, halvings = (facts.height, facts.width), facts.channels, _halvings(facts)
        for level in range(halvings + 1):
            outputs = min(config.width * 2**level, config.widest)
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1)), Rise(config.gain)]
            if level < halvings:
                layers += [spectral_norm(nn.Conv2d(outputs, outputs, 4, stride=2, padding=1)), Rise(config.gain)]
                size = (size[0] // 2, size[1] // 2)
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Flatten())
        features, self.gain = inputs * size[0] * size[1], config.gain
        self.real = spectral_norm(nn.Linear(features, 1))
        self.classes = spectral_norm(nn.Embedding(max(1, facts.classes), features))

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        features = self.layers(2 * image - 1)
        fits = (self.classes(label.clamp_min(0)) * features).sum(1)
        return self.gain * (self.real(features).squeeze(1) + torch.where(label >= 0, fits, 0.0))


class Gan(nn.Module):
    """The game. `losses(batch)` has the loss of each player by its name, which is that of the module it moves."""

    def __init__(self, config: Config, facts: Facts) -> None:
        super().__init__()
        self.config, self.count = config, facts.classes
        self.generator = Generator(config, facts)
        self.discriminator = Discriminator(config, facts)
        self.draws = frozenset({"labels"} if facts.classes else ())

    def views(self, batch: Mapping[str, Tensor], draw: Draw) -> dict[str, Tensor]:
        """The batch with what the generator draws from: "noise" (B, Z) and "wanted" (B,), the classes of the batch where they
        are known."""
        label = batch["label"] if self.count else torch.full_like(batch["label"], -1)
        some = draw.integers(0, max(0, self.count - 1))
        wanted = torch.where(label >= 0, label, some)
        return {"image": batch["image"], "label": label, "noise": draw.normal(self.config.noise), "wanted": wanted}

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        fake = self.generator(batch["noise"], batch["wanted"])
        asked = batch["wanted"] if self.count else batch["label"]
        both = torch.cat([batch["image"], fake.detach()]), torch.cat([batch["label"], asked])
        real, drawn = self.discriminator(*both).chunk(2)
        held = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        return {
            "discriminator": F.relu(1 - real).mean() + F.relu(1 + drawn).mean(),
            "generator": -functional_call(self.discriminator, held, (fake, asked)).mean(),
        }

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parts = self.losses(batch)
        return {
            "loss": parts["discriminator"] + parts["generator"],
            **{name: part.detach() for name, part in parts.items()},
        }

    def parameter_groups(self, optim: Optim) -> list[dict[str, Any]]:
        betas = (self.config.beta1, optim.beta2)
        rates = ((self.discriminator, 1.0), (self.generator, self.config.slower))
        return [
            {
                "params": list(player.parameters()),
                "lr": optim.lr * rate,
                "weight_decay": optim.weight_decay,
                "betas": betas,
            }
            for player, rate in rates
        ]

    def draw(
        self, seeds: Sequence[int], *, labels: Tensor | None = None, progress: Callable[[float], None] | None = None
    ) -> Tensor:
        """uint8 (N, C, H, W). labels: int64 (N,), -1 for any class, which the seed then chooses."""
        device = self.generator.leave.weight.device
        dice = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(self.config.noise, generator=die) for die in dice])
        some = torch.stack([torch.randint(max(1, self.count), (), generator=die) for die in dice])
        wanted = some if labels is None else torch.where(labels.cpu() >= 0, labels.cpu(), some)
        pictures = self.generator(noise.to(device), wanted.to(device))
        if progress is not None:
            progress(1.0)
        return (255 * pictures).round().to(torch.uint8)


def _halvings(facts: Facts) -> int:
    """How often a side is halved until the longer one is at most 5 and the shorter one at least 2."""
    times = 0
    while max(facts.height, facts.width) / 2**times > 5 and min(facts.height, facts.width) // 2 ** (times + 1) >= 2:
        times += 1
    return times


def build(config: Config, facts: Facts, backbone: nn.Module | None = None) -> Gan:
    return Gan(config, facts)


recipes = {
    "paper": Recipe(
        "paper",
        config={"noise": 128, "width": 64, "widest": 512, "gain": 1.0, "slower": 1.0},
        optim={
            "lr": 2e-4,
            "weight_decay": 0.0,
            "beta2": 0.999,
            "batch": 64,
            "schedule": "constant",
            "warmup": 0.0,
            "clip": 0.0,
        },
        budget=Budget(steps=100_000),
        source="1802.05957 on CIFAR-10, the setting of its CNN with one step each: rate, betas and batch as fjxmlzn/BSN has them, steps as "
        "w86763777/pytorch-gan-collections",
    ),
    "base": Recipe(
        "base",
        optim={"lr": 1e-3, "weight_decay": 0.0, "beta2": 0.9, "batch": 64, "warmup": 0.0, "clip": 0.0},
        source="chosen here on MNIST at 16 pixels; batch and beta2 as the authors' code (sngan_projection) has them",
        cost="2 to 10 minutes on a CPU at 16 pixels",
        expect="MNIST at 16 pixels, 2500 steps, seed 10: distance 1.42 where training images have 0.46, recall 0.52",
    ),
    "tiny": Recipe(
        "tiny",
        config={"width": 16, "widest": 32, "noise": 16},
        optim={"lr": 2e-3, "weight_decay": 0.0, "beta2": 0.9, "batch": 32, "warmup": 0.0, "clip": 0.0},
        budget=Budget(steps=100),
        source="small enough for tests",
        cost="seconds on a CPU",
    ),
}
