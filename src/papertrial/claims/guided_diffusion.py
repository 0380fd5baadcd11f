"""The claims of Guided diffusion (ADM), and the experiments that try them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from papertrial.claims import _guided_diffusion as trends
from papertrial.claims._lab import sizes
from papertrial.core.facts import Facts
from papertrial.core.paper import Curve, Figure, Measured, claim
from papertrial.core.recipe import resolve
from papertrial.papers import guided_diffusion as paper
from papertrial.papers.guided_diffusion import walk
from papertrial.papers.guided_diffusion.chain import at

#: millions of weights, the appendix's table of hyperparameters
_PUBLISHED = {"64": 296, "128": 422, "256": 554, "512": 559}


@claim(
    "The published U-Nets have the published numbers of weights.", where="appendix, hyperparameters", kind="identity"
)
def sizes_are_as_published(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    def unet(name: str) -> list[nn.Module]:
        facts = Facts("images", 0, 1, 3, int(name), int(name), classes=1000)
        return [paper.build(paper.Config(**paper.variants[name]), facts).diffusion.unet]

    return sizes(_PUBLISHED, unet)


@claim(
    "The linear schedule goes from 0.0001 to 0.02, and the cosine one keeps the share of the image that its cosine says.",
    where="2102.09672, sec. 3.2",
    kind="identity",
)
def schedules_end_where_they_should(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    linear, cosine = paper.betas("linear", 1000), paper.Process(paper.betas("cosine", 1000))
    t = np.arange(1, 1001) / 1000
    kept = (np.cos((t + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    gap = np.abs(cosine.alpha_bar.numpy() - kept)[:-1].max()  # the last step is cut at 0.999
    measured = {"first": linear[0], "last": linear[-1], "gap": gap, "left": float(cosine.alpha_bar[-1])}
    return bool(np.allclose(linear[[0, -1]], [1e-4, 0.02]) and gap < 1e-12 and measured["left"] < 1e-5), measured


@claim(
    "Respaced to all its steps, the chain is unchanged; with fewer steps, each keeps its noise level and the step number that the network is told.",
    where="2102.09672, sec. 4",
    kind="identity",
)
def respacing_keeps_the_noise(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    gaps = {}
    for schedule in ("linear", "cosine"):
        chain = paper.Process(paper.betas(schedule, 1000))
        for count in (1000, 250, 25, 1):
            times = paper.spaced(count, 1000)
            some = chain.respaced(times)
            gap = (some.alpha_bar / chain.alpha_bar[times] - 1).abs().max()
            told = torch.equal(some.time, torch.from_numpy(times)) and len(some) == count
            gaps[f"{schedule}_{count}"] = float(gap) if told else math.inf
        gaps[f"{schedule}_beta"] = float((chain.respaced(paper.spaced(1000, 1000)).beta / chain.beta - 1).abs().max())
    return max(gaps.values()) < 1e-9, gaps


@claim(
    "One step back from x_t, averaged over the noise, is one step less forward: q(x_{t-1} | x_0).",
    where="2102.09672, eq. 10 to 12",
    kind="identity",
)
def posterior_joins_up(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    gaps = {}
    for schedule in ("linear", "cosine"):
        chain = paper.Process(paper.betas(schedule, 1000))
        kept, before, first, last = chain.alpha_bar[1:], chain.before[1:], chain.from_x0[1:], chain.from_xt[1:]
        mean = first + last * kept.sqrt() - before.sqrt()
        variance = last.square() * (1 - kept) + chain.log_posterior[1:].exp() - (1 - before)
        gaps[schedule] = float(torch.cat([mean, variance]).abs().max())
    return max(gaps.values()) < 1e-12, gaps


def _noised(seed: int, count: int = 50) -> tuple[paper.Process, Tensor, Tensor, Tensor, Tensor]:
    """A chain of some steps, images, a step for each, their noise, and what they are then; float64."""
    generator = torch.Generator().manual_seed(seed)
    chain = paper.Process(paper.betas("cosine", 1000)).respaced(paper.spaced(count, 1000))
    t = torch.arange(count)
    x0 = 2 * torch.rand(count, 2, 4, 4, generator=generator, dtype=torch.float64) - 1
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    return chain, x0, t, noise, chain.diffuse(x0, t, noise)


@claim(
    "Where the noise is predicted exactly, the error is zero, and with the least variance the bound is zero but for the "
    "first step.",
    where="2102.09672, eq. 4 and 16",
    kind="identity",
)
def perfect_prediction_costs_nothing(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    chain, x0, t, noise, xt = _noised(seed)
    error, bound = paper.hybrid_terms(chain, torch.cat([noise, -torch.ones_like(noise)], 1), x0, xt, t, noise)
    measured = {"error": float(error.max()), "bound": float(bound[1:].abs().max()), "first": float(bound[0])}
    return measured["error"] == 0 and measured["bound"] < 1e-9 and measured["first"] > 0, measured


@claim("A predicted variance lies between that of the posterior and beta.", where="2102.09672, eq. 15", kind="property")
def variances_stay_between_their_bounds(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    chain, x0, t, noise, xt = _noised(seed)
    share = torch.linspace(-1, 1, 32, dtype=torch.float64).view(2, 4, 4).expand_as(x0)
    log_variance = chain.predict(torch.cat([noise, share], 1), xt, t).log_variance.flatten(1)
    ends = torch.stack([chain.log_posterior, chain.log_beta], 1)
    gap = float((log_variance[:, [0, -1]] - ends).abs().max())
    inside = bool((log_variance.diff(dim=1) >= 0).all())
    return inside and gap < 1e-12, {"gap_at_the_ends": gap}


@claim(
    "With exact noise and an exact classifier, a scale of 1 turns the step of all classes into the step of one.",
    where="algorithm 2, by Bayes' rule; on two normal classes",
    kind="identity",
)
def guidance_is_bayes_rule(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    chain, _, t, noise, xt = _noised(seed)
    kept = at(chain.alpha_bar, t, xt)
    mean, spread = 0.5 * kept.sqrt(), 1 - kept + 0.09 * kept  # classes at -0.5 and 0.5, of variance 0.09, diffused
    weight = torch.sigmoid(2 * mean * xt / spread)  # of the second class, for each value by itself
    of_one = (xt - mean) / spread  # minus the score of the second class
    of_all = of_one + 2 * mean / spread * (1 - weight)
    gradient = of_all - of_one
    steps = []
    for slope, pull in ((of_one, None), (of_all, gradient)):
        guess = torch.cat([(1 - kept).sqrt() * slope, torch.zeros_like(xt)], 1)
        steps.append(walk.ddim_step(chain, chain.predict(guess, xt, t, clip=False), xt, t, noise, pull))
    gap = float((steps[0] - steps[1]).abs().max())
    return gap < 1e-9, {"gap": gap}


@claim(
    "Without guidance the sampler is that of the unguided model, bit for bit, whatever class is asked for.",
    where="algorithms 1 and 2",
    kind="property",
)
def no_guidance_is_the_unguided_sampler(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    torch.manual_seed(seed)
    facts = Facts("images", 100, 100, 1, 8, 8, classes=3, outputs=3)
    config, _ = resolve(paper.Config, facts, {"tiny": paper.recipes["tiny"].config})
    model = paper.build(config, facts)
    for weight in model.parameters():  # away from layers that start at zero
        nn.init.normal_(weight, std=0.1)
    changed, held = 0.0, True
    for sampler in ("ddpm", "ddim"):
        plain, none, some = (
            model.draw(range(4), labels=labels, guidance=guidance, sampler=sampler)
            for labels, guidance in ((None, None), (torch.arange(4) % 3, 0.0), (torch.arange(4) % 3, 100.0))
        )
        held &= torch.equal(plain, none)
        changed = max(changed, float((plain.int() - some.int()).abs().max()))
    return held and changed > 0, {"levels_that_guidance_moves": changed}


def _shares(measured: Measured) -> Figure:
    names = {"precision": "precision", "recall": "recall", "class_accuracy": "of the class that was asked for"}
    return Figure(
        "Fidelity and variety, by the scale of guidance",
        "scale",
        "share of the pictures",
        tuple(Curve.over_seeds(words, measured, f"{name}_{{}}") for name, words in names.items()),
        "Fidelity is precision and class, variety is recall, in the features of a small classifier; the band spans the seeds.",
    )


def _distances(measured: Measured) -> Figure:
    return Figure(
        "Frechet distance, by the scale of guidance",
        "scale",
        "Frechet distance to test images",
        (Curve.over_seeds("guided diffusion", measured, "frechet_{}"),),
        "Lower is better. In the features of a small classifier of the same data; the band spans the seeds.",
    )


@claim(
    "A larger guidance scale gives more images of the class that was asked for, and covers fewer of the real ones.",
    where="fig. 4, there on ImageNet 128, here on MNIST at 16 x 16 (digits at 8 x 8 where it is not at hand)",
    kind="trend",
    cost={"tiny": "10 s cpu", "base": "8 min cpu, shared with the next two"},
    plot=_shares,
    clock=("cpu_seconds",),
)
def guidance_trades_variety_for_fidelity(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = trends.curve(scale, seed)
    right = [measured[f"class_accuracy_{at}"] for at in trends.SCALES]
    rises = min(later - earlier for earlier, later in itertools.pairwise(right))
    measured["margin"] = min(rises, measured["recall_2"] - measured["recall_10"])
    return measured["margin"] > 0, measured


@claim(
    "At its best scale guidance brings the drawn images nearer to the real ones than no guidance does.",
    where="table 4, there on ImageNet 256; the scale is chosen on validation images",
    kind="trend",
    cost={"tiny": "10 s cpu", "base": "8 min cpu, shared"},
    plot=_distances,
    clock=("cpu_seconds",),
)
def guidance_improves_the_distance(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured, best = trends.curve(scale, seed), trends.best(scale, seed)
    measured |= {"best_scale": best, "margin": measured["frechet_0"] - measured[f"frechet_{best}"]}
    return measured["margin"] > 0, measured


@claim(
    "At its best scale it draws nearer to the real images than a convolutional GAN after as many CPU seconds.",
    where="table 5, there against BigGAN-deep on ImageNet, here against spectral norm and the hinge loss",
    kind="trend",
    cost={"tiny": "20 s cpu", "base": "13 min cpu, of which 8 are shared"},
    clock=("held", "*_gan", "cpu_seconds", "margin"),
)
def beats_a_gan_at_equal_cost(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    best = trends.best(scale, seed)
    gan = trends.scores(scale, seed, None)
    measured = {f"{name}_gan": gan[name] for name in trends.METRICS}
    measured |= {f"{name}_best": trends.scores(scale, seed, best)[name] for name in trends.METRICS}
    measured |= {"unguided": trends.scores(scale, seed, 0)["frechet"], "best_scale": best}
    measured |= {"cpu_seconds": trends.guided(scale, seed)[1], "cpu_seconds_gan": trends.rival(scale, seed)[1]}
    measured["margin"] = measured["frechet_gan"] - measured["frechet_best"]
    return measured["margin"] > 0, measured


@claim(
    "What an upsampler draws of a small image is that image: made smaller again it is at least twice as near to it as to "
    "another one.",
    where="sec. 4.4, upsamplers conditioned on the image of lower resolution, there 64 to 256 pixels, here 8 to 16",
    kind="trend",
    cost={"tiny": "10 s cpu", "base": "2 min cpu, shared with the next"},
)
def an_upsampler_keeps_what_it_is_shown(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = trends.kept(scale, seed)
    measured["margin"] = measured["other"] / 2 - measured["own"]
    return measured["margin"] > 0, measured


@claim(
    "A model of half the side and an upsampler draw nearer to the real images than one model after as many steps in all.",
    where="table 5, ADM-U against ADM on ImageNet 256, there not at equal cost; here without guidance, 8 to 16 pixels",
    kind="trend",
    cost={"tiny": "15 s cpu", "base": "4 min cpu"},
)
def a_cascade_improves_the_distance(scale: str, seed: int) -> tuple[bool, dict[str, float]]:
    measured = {"one_model": trends.distance(scale, seed, False), "cascade": trends.distance(scale, seed, True)}
    measured["margin"] = measured["one_model"] - measured["cascade"]
    return measured["margin"] > 0, measured
