"""Guided diffusion against diffusers and against its equations written out, on awkward sizes, and its checkpoints."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from papertrial.claims import _guided_diffusion as trends
from papertrial.claims import guided_diffusion as claims
from papertrial.core.budget import Budget
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.facts import Facts
from papertrial.core.paper import claims_of
from papertrial.core.recipe import Optim, resolve
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.views import Draw
from papertrial.papers import guided_diffusion
from papertrial.papers.guided_diffusion import (
    Config,
    Process,
    betas,
    build,
    checkpoints,
    hybrid_terms,
    recipes,
    spaced,
    variants,
    walk,
)
from papertrial.papers.guided_diffusion.unet import Attention, AttentionPool, Classifier, Plan, ResBlock, UNet, side_at
from papertrial.papers.guided_diffusion.walk import ancestral_step, ddim_step, enlarged, shrunk
from papertrial.train.stages import train_stages

SMALL = Plan(3, 16, (1, 2), 1, (1,), head_width=16, groups=4)


def randomised(module, seed=0, scale=0.2):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def facts_of(side=8, channels=1, classes=3, width=None):
    shape = (side, side if width is None else width)
    return Facts("images", 100, 100 if classes else 0, channels, *shape, classes=classes, outputs=classes)


def system(seed=0, facts=None, **settings):
    facts = facts or facts_of()
    config, _ = resolve(Config, facts, {"tiny": recipes["tiny"].config, "test": settings})
    return randomised(build(config, facts), seed, 0.1).eval()


def same(ours, theirs, tolerance=1e-10):
    scale = max(float(theirs.detach().abs().max()), 1e-12)
    assert float((ours - theirs).detach().abs().max()) <= tolerance * scale


# ------------------------------------------------------------------------------------------------------- the networks


def _diffusers_names(levels, blocks):
    """What diffusers calls the parts of such a U-Net, and what we call them."""
    names = {
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "class_embedding": "label_emb",
    }
    names |= {f"time_embedding.linear_{index + 1}": f"time_embed.{2 * index}" for index in range(2)}
    names |= {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1"}
    names |= {"mid_block.resnets.1": "middle_block.2"}
    for level in range(levels):
        down, up = 1 + level * (blocks + 1), level * (blocks + 1)
        for index in range(blocks + 1):
            names[f"up_blocks.{level}.resnets.{index}"] = f"output_blocks.{up + index}.0"
            names[f"up_blocks.{level}.attentions.{index}"] = f"output_blocks.{up + index}.1"
            if index < blocks:
                names[f"down_blocks.{level}.resnets.{index}"] = f"input_blocks.{down + index}.0"
                names[f"down_blocks.{level}.attentions.{index}"] = f"input_blocks.{down + index}.1"
        names[f"down_blocks.{level}.downsamplers.0"] = f"input_blocks.{down + blocks}.0"
        names[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{up + blocks}.{2 if level == 0 else 1}"
    # where convolutions resample
    names["down_blocks.0.downsamplers.0.conv"] = f"input_blocks.{1 + blocks}.0.op"
    names["up_blocks.0.upsamplers.0.conv"] = f"output_blocks.{blocks}.2.conv"
    return names


_PARTS = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection", "group_norm": "norm", "to_out.0": "proj_out",
}  # fmt: skip


@pytest.mark.parametrize("biggan", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
def test_the_unet_is_that_of_diffusers(biggan, adaptive):
    from diffusers import UNet2DModel

    kinds = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if biggan else ("DownBlock2D", "UpBlock2D")
    way = "resnet" if biggan else "conv"
    theirs = UNet2DModel(
        16, 3, 6, block_out_channels=(16, 32), layers_per_block=2, down_block_types=(kinds[0], "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", kinds[1]), attention_head_dim=16, norm_num_groups=4, attn_norm_num_groups=4, downsample_type=way,
        upsample_type=way, resnet_time_scale_shift="scale_shift" if adaptive else "default", num_class_embeds=5, freq_shift=0,
    )  # fmt: skip
    theirs = randomised(theirs.double())
    state = {}
    names = _diffusers_names(2, 2)
    for full, tensor in theirs.state_dict().items():
        prefix = max((name for name in names if full.startswith(f"{name}.")), key=len)
        part, _, kind = full.removeprefix(f"{prefix}.").rpartition(".")
        state[f"{names[prefix]}.{_PARTS.get(part, part)}.{kind}".replace("..", ".")] = tensor
    for name in [name for name in state if ".to_q." in name]:
        whole = torch.cat([state.pop(name.replace("to_q", f"to_{letter}")) for letter in "qkv"])
        state[name.replace("to_q", "qkv")] = whole
    plan = Plan(3, 16, (1, 2), 2, (1,), head_width=16, qkv_first=True, groups=4, adaptive=adaptive, biggan=biggan)
    ours = UNet(plan, 6, 5).double()
    shapes = ours.state_dict()
    ours.load_state_dict({name: tensor.view(shapes[name].shape) for name, tensor in state.items()})

    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    time, label, mix = torch.tensor([0, 500, 999]), torch.tensor([0, 4, 2]), torch.randn(3, 6, 16, 16).double()
    with pytest.MonkeyPatch.context() as patch:  # their embedding of time is computed in single precision
        patch.setattr("diffusers.models.unets.unet_2d.UNet2DModel.dtype", torch.float64, raising=False)
        theirs.time_proj.forward = lambda t: guided_diffusion.unet.time_embedding(t, 16, torch.float64)
        outputs = [ours(inputs[0], time, label), theirs(inputs[1], time, label).sample]
    same(*outputs)
    for out in outputs:
        (out * mix).sum().backward()
    same(inputs[0].grad, inputs[1].grad)
    down, halving = ours.input_blocks[3][0], theirs.down_blocks[0].downsamplers[0]
    pair = (down.in_layers[2], halving.conv1) if biggan else (down.op, halving.conv)
    same(*(layer.weight.grad for layer in pair))
    same(ours.middle_block[0].out_layers[3].weight.grad, theirs.mid_block.resnets[0].conv2.weight.grad)
    same(ours.label_emb.weight.grad, theirs.class_embedding.weight.grad)


def test_the_embedding_of_time_is_that_of_diffusers():
    from diffusers.models.embeddings import get_timestep_embedding

    time = torch.tensor([0, 1, 500, 999])
    for width in (16, 7):
        theirs = get_timestep_embedding(time, width, flip_sin_to_cos=True, downscale_freq_shift=0)
        torch.testing.assert_close(guided_diffusion.unet.time_embedding(time, width), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("qkv_first", [True, False])
def test_attention_is_that_of_torch(qkv_first):
    ours = randomised(Attention(12, 3, 4, qkv_first).double())
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    order = torch.arange(36) if qkv_first else torch.arange(36).view(3, 3, 4).transpose(0, 1).flatten()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight[order, :, 0])
        theirs.in_proj_bias.copy_(ours.qkv.bias[order])
        theirs.out_proj.weight.copy_(ours.proj_out.weight[..., 0])
        theirs.out_proj.bias.copy_(ours.proj_out.bias)
    x, mix = (torch.randn(2, 12, 3, 5, dtype=torch.float64) for _ in range(2))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    tokens = ours.norm(inputs[1]).flatten(2).mT
    outputs = [ours(inputs[0]), inputs[1] + theirs(tokens, tokens, tokens)[0].mT.view_as(x)]
    same(*outputs)
    gradients = [
        torch.autograd.grad((out * mix).sum(), (given, weight))
        for out, given, weight in zip(outputs, inputs, (ours.qkv.weight, theirs.in_proj_weight), strict=True)
    ]
    same(gradients[0][0], gradients[1][0])
    same(gradients[0][1][order, :, 0], gradients[1][1])


def test_the_pool_asks_with_the_mean():
    pool = randomised(AttentionPool(6, 8, 2, 5).double(), scale=0.7)
    x = torch.randn(2, 8, 2, 3, dtype=torch.float64, requires_grad=True)
    places = x.flatten(2)
    tokens = (torch.cat([places.mean(2, keepdim=True), places], 2) + pool.positional_embedding).mT
    query, key, value = (tokens @ pool.qkv_proj.weight[..., 0].T + pool.qkv_proj.bias).chunk(3, 2)
    found = []
    for head in (slice(0, 4), slice(4, 8)):
        weight = torch.softmax(query[:, :1, head] @ key[:, :, head].mT / 2, -1)
        found.append(weight @ value[:, :, head])
    outputs = [pool(x), torch.cat(found, 2)[:, 0] @ pool.c_proj.weight[..., 0].T + pool.c_proj.bias]
    same(*outputs)
    mix, held = torch.randn_like(outputs[0]), (x, pool.positional_embedding, pool.qkv_proj.weight)
    for mine, other in zip(*(torch.autograd.grad((out * mix).sum(), held) for out in outputs), strict=True):
        same(mine, other)


#: what the authors' code calls the layers with weights of its parts
AUTHORS = {
    "convolution": {""},
    "block": {".in_layers.0", ".in_layers.2", ".emb_layers.1", ".out_layers.0", ".out_layers.3"},
    "attention": {".norm", ".qkv", ".proj_out"},
}


def _published(blocks, others):
    """Names of weights: of parts by their place, such as "input_blocks.0.0", and of single layers."""
    layers = {place + part for place, kind in blocks.items() for part in AUTHORS[kind]} | others
    return {f"{layer}.{end}" for layer in layers for end in ("weight", "bias")}


def test_names_are_the_authors():
    way_down = {
        "input_blocks.0.0": "convolution", "input_blocks.1.0": "block", "input_blocks.2.0": "block",
        "input_blocks.3.0": "block", "input_blocks.3.1": "attention",
        "middle_block.0": "block", "middle_block.1": "attention", "middle_block.2": "block",
    }  # fmt: skip
    way_up = {
        "output_blocks.0.0": "block", "output_blocks.0.1": "attention", "output_blocks.1.0": "block",
        "output_blocks.1.1": "attention", "output_blocks.1.2": "block", "output_blocks.2.0": "block",
        "output_blocks.3.0": "block",
    }  # fmt: skip
    time = {"time_embed.0", "time_embed.2"}
    wider = {f"{place}.0.skip_connection" for place in ("input_blocks.3", *(f"output_blocks.{at}" for at in range(4)))}
    expected = _published(way_down | way_up, time | wider | {"out.0", "out.2"}) | {"label_emb.weight"}
    assert set(UNet(SMALL, 6, 4).state_dict()) == expected
    pool = {"out.2.qkv_proj", "out.2.c_proj"}
    expected = _published(way_down, time | pool | {"out.0", "input_blocks.3.0.skip_connection"})
    assert set(Classifier(SMALL, 16, 4).state_dict()) == expected | {"out.2.positional_embedding"}


@pytest.mark.parametrize("resample", ["", "up", "down"])
def test_a_fresh_block_is_its_skip(resample):
    block = ResBlock(8, 12, 8, 4, resample=resample)
    x = torch.randn(2, 8, 7, 5)
    expected = {"": x, "up": x.repeat_interleave(2, 2).repeat_interleave(2, 3)}.get(resample)
    out = block(x, torch.randn(2, 12))
    if expected is None:  # an odd side: the last row is a mean of what there is
        assert out.shape == (2, 8, 4, 3)
        same(out[:, :, :3, :2], nn.functional.avg_pool2d(x, 2))
        same(out[:, :, 3, 2], x[:, :, 6, 4])
    else:
        assert torch.equal(out, expected)


@pytest.mark.parametrize("plan", [SMALL, Plan(3, 16, (1, 2), 1, (1,), 2, groups=4, adaptive=False, biggan=False)])
def test_a_fresh_unet_says_zero_and_learns_everywhere(plan):
    unet = UNet(plan, 6, 4)
    x, time, label = torch.randn(2, 3, 8, 8), torch.tensor([1, 900]), torch.tensor([3, -1])
    assert not unet(x, time, label).any()
    randomised(unet)
    unet(x, time, label).square().sum().backward()
    assert all(bool(weight.grad.abs().max() > 0) for weight in unet.parameters())
    assert not unet.label_emb.weight.grad[:3].any()  # classes that nobody has


@pytest.mark.parametrize("shape", [(4, 4), (7, 5), (28, 30), (9, 64), (12, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_size(shape, channels):
    facts = facts_of(shape[0], channels, width=shape[1])
    config, _ = resolve(Config, facts, {"test": {"width": 16, "classifier_width": 16, "groups": 4, "head_width": 16}})
    model = build(config, facts)
    batch = {"image": torch.rand(2, channels, *shape), "label": torch.tensor([0, 2])}
    for stage in model.stages():
        loss = stage.model.loss(stage.model.views(batch, Draw(0, 0, 2)))["loss"]
        loss.backward()
        assert torch.isfinite(loss)
    assert model.draw([1, 2], labels=torch.tensor([1, -1]), steps=2).shape == (2, channels, *shape)


def test_settings_suit_the_size():
    found = {side: resolve(Config, facts_of(side, 3), {})[0] for side in (8, 16, 28, 32, 64, 128, 256)}
    assert [found[side].width for side in (8, 16, 28, 32, 64, 256)] == [32, 32, 32, 32, 64, 256]
    assert found[128].multipliers == (1, 1, 2, 3, 4)
    assert found[64].noise_schedule == "cosine"
    assert found[128].noise_schedule == "linear"
    for side, config in found.items():
        with torch.device("meta"):
            unet = build(config, facts_of(side, 3)).diffusion.unet
        assert unet.plan.attention
        assert side_at(side, len(config.multipliers) - 1) >= 2


@pytest.mark.parametrize("shape", [(1, 20), (3, 3), (20, 2)], ids=str)
def test_images_too_small_are_declined(shape):
    with pytest.raises(Declined, match="at least 4 pixels"):
        build(Config(), facts_of(shape[0], width=shape[1]))


@pytest.mark.parametrize("setting", [{"groups": 5}, {"heads": 3}, {"noise_schedule": "square"}], ids=str)
def test_settings_that_cannot_be(setting):
    with pytest.raises(PapertrialError, match=r"groups|heads|schedule"):
        system(**setting)


# ---------------------------------------------------------------------------------------------------------- the chain


def test_schedules_are_those_of_diffusers():
    from diffusers import DDPMScheduler

    for ours, theirs in (("linear", "linear"), ("cosine", "squaredcos_cap_v2")):
        held = DDPMScheduler(1000, beta_schedule=theirs).betas
        torch.testing.assert_close(torch.from_numpy(betas(ours, 1000)).float(), held, rtol=1e-5, atol=1e-8)


def _exact(scheduler, schedule):
    """A scheduler of diffusers with tables in double precision."""
    scheduler.betas = torch.from_numpy(betas(schedule, 1000))
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.one
    return scheduler


def _drawn(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    output, xt = (torch.randn(2, c, 4, 4, generator=generator, dtype=torch.float64) * scale for c in (4, 2))
    return output.requires_grad_(), xt.requires_grad_()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0], ids=["plain", "tiny", "wide"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ancestral_steps_are_those_of_diffusers(schedule, scale):
    from diffusers import DDPMScheduler

    theirs = _exact(DDPMScheduler(1000, variance_type="learned_range", clip_sample=True), schedule)
    chain = Process(betas(schedule, 1000))
    for place in (1, 2, 500, 999):
        output, xt = _drawn(place, scale)
        t = torch.full((2,), place)
        noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        ours = ancestral_step(chain, chain.predict(output, xt, t), xt, t, noise)
        step = theirs.step(output, place, xt, generator=torch.Generator().manual_seed(5)).prev_sample
        same(ours, step)
        gradients = [torch.autograd.grad(value.pow(3).sum(), (output, xt)) for value in (ours, step)]
        for mine, other in zip(*gradients, strict=True):
            same(mine, other, 1e-8)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ancestral_steps_with_steps_left_out_are_those_of_diffusers(schedule):
    from diffusers import DDPMScheduler

    theirs = _exact(DDPMScheduler(1000, variance_type="learned_range", clip_sample=True), schedule)
    times = spaced(25, 1000)
    theirs.set_timesteps(timesteps=times[::-1].tolist())
    chain = Process(betas(schedule, 1000)).respaced(times)
    for place in (0, 1, 12, 24):
        output, xt = _drawn(place)
        t = torch.full((2,), place)
        noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        ours = ancestral_step(chain, chain.predict(output, xt, t), xt, t, noise)
        step = theirs.step(output, int(times[place]), xt, generator=torch.Generator().manual_seed(5)).prev_sample
        same(ours, step)
        gradients = [
            torch.autograd.grad(value.pow(3).sum(), (output, xt), materialize_grads=True) for value in (ours, step)
        ]
        for mine, other in zip(*gradients, strict=True):
            same(mine, other, 1e-8)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_drawing_is_the_walk_that_diffusers_takes(monkeypatch, schedule, sampler):
    from diffusers import DDIMScheduler, DDPMScheduler

    model = system(noise_schedule=schedule).double()
    # theirs reaches both ends of the chain only where it takes every step
    monkeypatch.setattr(guided_diffusion, "spaced", lambda count, steps: np.arange(count) * (steps // count))
    if sampler == "ddpm":
        theirs, options = DDPMScheduler(1000, variance_type="learned_range", clip_sample=True), {}
    else:
        theirs = DDIMScheduler(1000, clip_sample=True, set_alpha_to_one=True)
        options = {"use_clipped_model_output": True}
    theirs.set_timesteps(8)
    theirs = _exact(theirs, schedule)
    dice = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    x, *noises = [torch.stack([torch.randn(1, 8, 8, generator=die) for die in dice]).double() for _ in range(9)]
    for t, noise in zip(theirs.timesteps.tolist(), noises, strict=True):
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, noise=noise, **k: noise)
        with torch.no_grad():
            output = model.diffusion.unet(x, torch.full((2,), t))
        x = theirs.step(output if sampler == "ddpm" else output[:, :1], t, x, **options).prev_sample
    drawn = model.draw((3, 4), steps=8, sampler=sampler)
    assert torch.equal(drawn, ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    assert len(drawn.unique()) > 5  # not all black or white


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddim_steps_are_those_of_diffusers(schedule, eta):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(1000, clip_sample=True, set_alpha_to_one=True, timestep_spacing="leading")
    theirs.set_timesteps(20)
    theirs = _exact(theirs, schedule)
    times = np.arange(20) * 50
    assert theirs.timesteps.tolist() == times[::-1].tolist()
    chain = Process(betas(schedule, 1000)).respaced(times)
    for place in (0, 1, 10, 19):
        output, xt = _drawn(place)
        noise = torch.randn(2, 2, 4, 4, dtype=torch.float64)
        t = torch.full((2,), place)
        ours = ddim_step(chain, chain.predict(output, xt, t), xt, t, noise, eta=eta)
        step = theirs.step(
            output[:, :2], int(times[place]), xt, eta=eta, use_clipped_model_output=True, variance_noise=noise
        ).prev_sample
        same(ours, step)


def test_guidance_moves_the_mean_by_the_variance_and_the_noise_by_the_score():
    chain = Process(betas("cosine", 1000)).respaced(spaced(50, 1000))
    t, (output, xt) = torch.tensor([3, 30]), _drawn(0)
    gradient, noise = torch.randn_like(xt), torch.randn_like(xt)
    found = chain.predict(output, xt, t)
    moved = ancestral_step(chain, found, xt, t, noise, gradient) - ancestral_step(chain, found, xt, t, noise)
    same(moved, found.log_variance.exp() * gradient)
    kept, before = (table[t].view(-1, 1, 1, 1) for table in (chain.alpha_bar, chain.before))
    guess = (xt - kept.sqrt() * found.x0) / (1 - kept).sqrt() - (1 - kept).sqrt() * gradient
    x0 = (xt - (1 - kept).sqrt() * guess) / kept.sqrt()
    same(ddim_step(chain, found, xt, t, noise, gradient), before.sqrt() * x0 + (1 - before).sqrt() * guess)


def _below(edge):
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (edge + 0.044715 * edge**3)))


def _written_out(beta, output, x0, noise, place):
    """Error and bound in bits of one image at one step, from distributions of torch and a sum over bytes."""
    alpha_bar = torch.from_numpy(np.cumprod(1 - beta))
    kept, before = alpha_bar[place], alpha_bar[place - 1] if place else torch.tensor(1.0, dtype=torch.float64)
    xt = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    guess, share = output.chunk(2)
    first = beta[place] * before.sqrt() / (1 - kept)
    last = (1 - before) * math.sqrt(1 - beta[place]) / (1 - kept)
    least = beta[place] * (1 - before) / (1 - kept) if place else beta[1] * (1 - alpha_bar[0]) / (1 - alpha_bar[1])
    log_variance = (share + 1) / 2 * math.log(beta[place]) + (1 - share) / 2 * least.log()
    held = guess.detach()
    mean = first * (xt - (1 - kept).sqrt() * held) / kept.sqrt() + last * xt
    if place:
        model = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        truth = torch.distributions.Normal(first * x0 + last * xt, least.sqrt())
        nats = torch.distributions.kl_divergence(truth, model)
    else:
        spread = (0.5 * log_variance).exp()
        under = torch.where(x0 > -0.999, _below((x0 - 1 / 255 - mean) / spread), torch.zeros_like(x0))
        above = torch.where(x0 < 0.999, _below((x0 + 1 / 255 - mean) / spread), torch.ones_like(x0))
        nats = -(above - under).clamp_min(1e-12).log()
    return (guess - noise).pow(2).mean(), nats.mean() / math.log(2)


@pytest.mark.parametrize("kind", ["plain", "black and white", "tiny", "wide"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_hybrid_loss_is_as_written_out(schedule, kind):
    torch.manual_seed(0)
    beta = betas(schedule, 1000)
    chain, t = Process(beta), torch.tensor([0, 0, 1, 400, 999])
    x0 = (torch.randint(0, 256, (5, 2, 4, 4)) / 127.5 - 1).double()
    x0 = {"black and white": x0.sign(), "tiny": x0 * 1e-3}.get(kind, x0)
    noise = torch.randn_like(x0)
    output = torch.randn(5, 4, 4, 4, dtype=torch.float64) * (20 if kind == "wide" else 0.5)
    output[1, :2] = noise[1]  # so that the first step is likely somewhere
    outputs = [output.clone().requires_grad_() for _ in range(2)]
    ours = hybrid_terms(chain, outputs[0], x0, chain.diffuse(x0, t, noise), t, noise)
    rows = [_written_out(beta, outputs[1][row], x0[row], noise[row], int(t[row])) for row in range(5)]
    theirs = [torch.stack(terms) for terms in zip(*rows, strict=True)]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)
    gradients = [
        torch.autograd.grad((error + bound).sum(), held)
        for (error, bound), held in zip((ours, theirs), outputs, strict=True)
    ]
    same(gradients[0][0], gradients[1][0], 1e-8)
    assert not torch.autograd.grad(hybrid_terms(chain, outputs[0], x0, x0, t, noise)[1].sum(), outputs[0])[0][
        :, :2
    ].any()


@pytest.mark.parametrize(("count", "steps"), [(1, 10), (10, 10), (3, 10), (25, 1000), (999, 1000)])
def test_spaced_steps(count, steps):
    found = spaced(count, steps)
    assert len(set(found.tolist())) == count
    assert found[0] == 0
    assert found[-1] == (steps - 1 if count > 1 else 0)
    assert np.ptp(np.diff(found)) <= 1 if count > 1 else True


@pytest.mark.parametrize("count", [0, 11, -1])
def test_steps_that_are_not_there(count):
    with pytest.raises(PapertrialError, match="10 of the chain"):
        spaced(count, 10)


# ------------------------------------------------------------------------------------------------- losses and training


def test_loss_weighs_the_bound_as_the_paper_does():
    model = system(steps=100).diffusion.double()
    batch = {"image": torch.rand(4, 1, 8, 8).double(), "label": torch.tensor([0, 1, 2, -1])}
    out = model.loss(model.views(batch, Draw(0, 0, 4)))
    same(out["loss"], out["error"] + 0.001 * 100 * out["bound"])


def test_ranks_see_what_one_process_would():
    model = system(facts=facts_of(channels=3)).double()
    batch = {"image": torch.rand(6, 3, 8, 8).double(), "label": torch.tensor([0, 1, 2, 0, 1, 2])}
    for stage in (model.diffusion, model.classifier):
        whole = stage.loss(stage.views(batch, Draw(3, 7, 6)))["loss"]
        parts = []
        for first, last in ((0, 2), (2, 6)):
            rows = {name: tensor[first:last] for name, tensor in batch.items()}
            parts.append((last - first) * stage.loss(stage.views(rows, Draw(3, 7, 6, first, last - first)))["loss"])
        same(whole, sum(parts) / 6)


def test_losses_have_the_slope_that_their_gradient_says():
    model = system(facts=facts_of(channels=3), class_cond=True).double()
    batch = {"image": torch.rand(4, 3, 8, 8).double(), "label": torch.tensor([0, 1, 2, 0])}
    for stage in (model.diffusion, model.classifier):
        views = stage.views(batch, Draw(0, 0, 4))
        stage.loss(views)["loss"].backward()
        weights = list(stage.parameters())
        way = [torch.randn_like(weight) for weight in weights]
        slope = sum(float((weight.grad * along).sum()) for weight, along in zip(weights, way, strict=True))
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for weight, along in zip(weights, way, strict=True):
                    weight.add_(along, alpha=sign * 1e-7)
                # the U-Net's guess is held still for the bound, so its slope is that of the error and the variances
                ends.append(float(stage.loss(views)["loss"]))
        if stage is model.classifier:
            assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(slope, rel=1e-4)
        assert all(bool(torch.isfinite(weight.grad).all()) for weight in weights)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["diffusion", "classifier"])
def test_compiled_and_in_bfloat16_the_loss_is_the_same(part):
    stage = getattr(system(), part)
    views = stage.views({"image": torch.rand(4, 1, 8, 8), "label": torch.tensor([0, 1, 2, 0])}, Draw(0, 0, 4))
    plain = stage.loss(views)["loss"]
    traced = torch.compile(lambda batch: stage.loss(batch)["loss"], backend="aot_eager")(views)
    torch.testing.assert_close(traced, plain, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(stage.loss(views)["loss"].detach()) == pytest.approx(float(plain.detach()), rel=0.08)


def test_stages_with_and_without_labels():
    model = system()
    assert [(stage.name, stage.share) for stage in model.stages()] == [("diffusion", 0.8), ("classifier", 0.2)]
    split = Split({"image": np.zeros((4, 8, 8, 1), np.uint8), "label": np.array([0, -1, 2, -1])})
    assert model.stages()[1].rows(split)["label"].tolist() == [0, 2]
    assert system(facts=facts_of(classes=0)).stages()[0].share == 1.0
    assert system(facts=facts_of(classes=0)).draws == {"steps", "start", "strength"}
    assert model.draws == {"steps", "start", "strength", "labels", "guidance"}


@pytest.mark.slow
def test_training_learns_a_colour(tmp_path):
    facts = facts_of(6, 3, classes=0, width=9)
    config, _ = resolve(Config, facts, {"tiny": recipes["tiny"].config, "test": {"steps": 50}})
    torch.manual_seed(0)
    model = build(config, facts)
    image = np.full((1, 6, 9, 3), (230, 60, 20), dtype=np.uint8)
    rows = Split({"image": image.repeat(16, 0), "label": np.full(16, -1)})
    optim = Optim(lr=5e-3, weight_decay=0.0, batch=16)
    train_stages(model, rows, optim, Budget(steps=120), Run(tmp_path), seed=0, progress=False)
    drawn = model.draw(range(4), steps=20).double()
    flat = torch.from_numpy(image).permute(0, 3, 1, 2).double()
    assert float((drawn - flat).abs().mean()) < 0.6 * float((127.5 - flat).abs().mean())


# -------------------------------------------------------------------------------------------------------------- drawing


def test_a_picture_depends_on_its_own_row_alone():
    model = system()
    labels = torch.tensor([0, -1, 2, 1, -1])
    together = model.draw([7, 8, 9, 10, 11], labels=labels, guidance=3.0, steps=6)
    assert together.dtype == torch.uint8
    for row in range(5):
        alone = model.draw([7 + row], labels=labels[row : row + 1], guidance=3.0, steps=6)
        assert int((alone[0].int() - together[row].int()).abs().max()) <= 1  # sums in another order, rounded
    assert torch.equal(together, model.draw([7, 8, 9, 10, 11], labels=labels, guidance=3.0, steps=6))
    assert not torch.equal(together[0], together[2])


def test_the_classifiers_gradient_is_that_of_each_row():
    model = system().double().classifier
    x, time, label = torch.randn(3, 1, 8, 8).double(), torch.tensor([0, 40, 99]), torch.tensor([2, -1, 0])
    found = model.gradient(x, time, label)
    assert not found[1].any()
    for row in (0, 2):
        one = x[row : row + 1].clone().requires_grad_()
        value = model.network(one, time[row : row + 1]).softmax(1)[0, label[row]].log()
        same(found[row], torch.autograd.grad(value, one)[0][0])
    assert all(weight.grad is None for weight in model.parameters())


def test_guidance_makes_the_class_likelier():
    model = system(3)
    randomised(model.classifier, 5, 0.3)
    labels = torch.zeros(16, dtype=torch.int64)
    likely = []
    for guidance in (0.0, 30.0):
        drawn = model.draw(range(16), labels=labels, guidance=guidance, steps=20) / 127.5 - 1
        likely.append(model.classifier.network(drawn, torch.zeros(16, dtype=torch.int64)).log_softmax(1)[:, 0].mean())
    assert likely[1] > likely[0]


def test_a_guidance_beyond_sense_is_no_black_picture():
    model, labels = system(3), torch.zeros(2, dtype=torch.int64)
    randomised(model.classifier, 5, 0.3)
    with pytest.raises(
        PapertrialError, match=r"not numbers any more at a guidance of 1e\+38; the authors guide by 0.5 to 10"
    ):
        model.draw(range(2), labels=labels, guidance=1e38, steps=4)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_walk_from_an_image_begins_there(sampler):
    model = system(draw_steps=50)
    start = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    gaps = []
    for strength in (0.02, 0.5, 1.0):
        drawn = model.draw([1, 2, 3], start=start, strength=strength, sampler=sampler)
        gaps.append(float((drawn.double() - start).abs().mean()))
    assert gaps[0] < 12
    assert gaps[0] < gaps[1]
    assert gaps[0] < gaps[2]


def test_progress_and_modes():
    model = system().train()
    heard = []
    model.draw([0], steps=5, progress=heard.append)
    assert heard == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert model.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_a_unet_with_classes_draws_one_where_none_is_asked_for():
    model = system(class_cond=True)
    either = model.draw([1, 2], guidance=0.0, steps=4)
    assert torch.equal(either, model.draw([1, 2], labels=torch.tensor([-1, -1]), guidance=0.0, steps=4))
    first = model.draw([1], labels=torch.tensor([0]), guidance=0.0, steps=4)
    assert not torch.equal(first, model.draw([1], labels=torch.tensor([1]), guidance=0.0, steps=4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": torch.tensor([3])}, "labels are one of 0 to 2"),
        ({"labels": torch.tensor([0, 1])}, "for each of 1 images"),
        ({"captions": ["a digit"]}, "no captions"),
        ({"steps": 0}, "of the chain"),
        ({"sampler": "euler"}, "sampler"),
        ({"sampler": "ddim", "eta": 2.0}, "eta"),
        ({"start": torch.zeros(1, 1, 9, 8, dtype=torch.uint8)}, "to start from images"),
        ({"start": torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "strength": 0.0}, "strength"),
    ],
    ids=str,
)
def test_drawings_that_cannot_be(options, words):
    with pytest.raises(PapertrialError, match=words):
        system().draw([0], **options)


@pytest.mark.parametrize("options", [{"labels": torch.tensor([0])}, {"guidance": 2.0}], ids=str)
def test_nothing_guides_without_labels(options):
    with pytest.raises(PapertrialError, match="no classifier"):
        system(facts=facts_of(classes=0)).draw([0], **options)


def test_bits_per_dimension_add_up():
    model = system(steps=40)
    image = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    found = model.bits_per_dim(image)
    assert found["steps"].shape == (3, 40)
    same(found["total"], found["steps"].sum(1) + found["prior"])
    assert bool((found["steps"] > 0).all() & (found["prior"] > 0).all())
    assert torch.equal(found["total"], model.bits_per_dim(image)["total"])
    x0 = (image / 127.5 - 1).double()
    kept = model.diffusion.process.alpha_bar[-1]
    normal = torch.distributions.Normal
    prior = torch.distributions.kl_divergence(normal(kept.sqrt() * x0, (1 - kept).sqrt()), normal(0.0, 1.0))
    torch.testing.assert_close(found["prior"].double(), prior.mean((1, 2, 3)) / math.log(2), rtol=1e-3, atol=1e-6)
    assert model.bits_per_dim(image, steps=5)["steps"].shape == (3, 5)


# ----------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("name", variants)
def test_what_a_checkpoint_is_is_read_off_its_shapes(name):
    side = int(name.partition("-")[0])
    config, facts = Config(**variants[name]), facts_of(side, 3, 1000)
    with torch.device("meta"):
        model = build(config, facts)
    unet, network = model.diffusion.unet, model.classifier.network
    found = checkpoints.plan_of(unet.state_dict())
    assert {**vars(found), "dropout": config.dropout} == vars(unet.plan) | {"head_width": found.head_width}
    assert [found.heads_of(size) for size in found.sizes] == [unet.plan.heads_of(size) for size in found.sizes]
    assert {**vars(checkpoints.plan_of(network.state_dict())), "dropout": config.dropout, "heads": 0, "qkv_first": False} == {
        **vars(network.plan), "heads": 0, "qkv_first": False,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [".pt", ".safetensors"])
def test_weights_go_through_a_file(tmp_path, kind):
    plan = Plan(3, 64, (1, 2), 2, (1,), head_width=32, qkv_first=True)
    unet, network = (
        randomised(UNet(plan, 6, 4)).eval(),
        randomised(Classifier(Plan(3, 64, (1, 2), 2, (1,)), 16, 4)).eval(),
    )
    files = [tmp_path / f"unet{kind}", tmp_path / f"classifier{kind}"]
    for file, module in zip(files, (unet, network), strict=True):
        (save_file if kind == ".safetensors" else torch.save)(module.state_dict(), file)
    with pytest.raises(PapertrialError, match="heads"):
        checkpoints.load(files[0])
    held = checkpoints.load(files[0], head_width=32, qkv_first=True)
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    assert torch.equal(held(x, time, torch.tensor([0, 3])), unet(x, time, torch.tensor([0, 3])))
    assert torch.equal(checkpoints.load(files[1])(x, time), network(x, time))
    with pytest.raises(PapertrialError, match="give side= and schedule="):
        guided_diffusion.load(files[0], head_width=32)
    model = guided_diffusion.load(files[0], side=8, schedule="cosine", head_width=32)
    assert model.draws == {"labels", "steps", "start", "strength"}
    assert model.draw([0], labels=torch.tensor([2]), steps=2).shape == (1, 3, 8, 8)


def test_weights_of_half_precision_and_of_other_classes(tmp_path):
    model, other = system(1), system(2, facts=facts_of(classes=5))
    torch.save({name: value.half() for name, value in model.diffusion.unet.state_dict().items()}, tmp_path / "unet.pt")
    torch.save(model.classifier.network.state_dict(), tmp_path / "classifier.pt")
    config, _ = resolve(Config, facts_of(classes=5), {"tiny": recipes["tiny"].config})
    files = f"{tmp_path / 'unet.pt'}, {tmp_path / 'classifier.pt'}"
    held = build(Config(**{**vars(config), "pretrained": files}), facts_of(classes=5))
    ours, theirs = held.classifier.network.state_dict(), model.classifier.network.state_dict()
    assert ours["out.2.c_proj.weight"].shape[0] == 5
    assert torch.equal(ours["out.2.qkv_proj.weight"], theirs["out.2.qkv_proj.weight"])
    weight = model.diffusion.unet.state_dict()["out.2.weight"].half().float()
    assert torch.equal(held.diffusion.unet.state_dict()["out.2.weight"], weight)
    assert "unet.pt" in guided_diffusion.licence(held.config)
    assert other.classes == 5


class Dangerous(nn.Module):
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize("content", ["module", "list", "text", "others", "nothing"])
def test_files_that_hold_no_weights_are_refused(tmp_path, capsys, content):
    file = tmp_path / "weights.pt"
    if content == "module":
        file.write_bytes(pickle.dumps(Dangerous(), protocol=2))
    elif content == "text":
        file.write_text("not found")
    elif content != "nothing":
        torch.save([torch.zeros(2)] if content == "list" else {"weight": torch.zeros(2)}, file)
    with pytest.raises(PapertrialError, match=r"tensors|no file|no U-Net"):
        checkpoints.load(file)
    assert "ran" not in capsys.readouterr().out


def test_weights_that_do_not_fit_say_what_would(tmp_path):
    torch.save(UNet(Plan(1, 32, (1, 2), 1, (1,)), 2).state_dict(), tmp_path / "unet.pt")
    with pytest.raises(PapertrialError, match=r"does not fit.*width=32 blocks=1 multipliers=1,2"):
        system(pretrained=str(tmp_path / "unet.pt"))
    torch.save(Classifier(Plan(1, 32, (1, 2), 1, (1,)), 16, 3).state_dict(), tmp_path / "classifier.pt")
    with pytest.raises(PapertrialError, match="without labels"):
        system(facts=facts_of(classes=0), pretrained=str(tmp_path / "classifier.pt"))


def test_an_upsampler_does_not_draw(tmp_path):
    torch.save(UNet(Plan(6, 32, (1, 2), 1, (1,)), 6).state_dict(), tmp_path / "upsampler.pt")
    with pytest.raises(PapertrialError, match="out of noise alone"):
        guided_diffusion.load(tmp_path / "upsampler.pt", heads=1)
    assert checkpoints.load(tmp_path / "upsampler.pt", heads=1).plan.channels == 6


# -------------------------------------------------------------------------------------------------------------- cascades


def cascade(facts=None, **settings):
    return system(facts=facts or facts_of(), **{"low": 4, **settings})


def test_a_cascade_has_a_model_of_small_images_and_an_upsampler():
    model = cascade(facts_of(width=12), low=6)
    assert model.first == (1, 4, 6) and model.shape == (1, 8, 12)
    assert model.upsampler.unet.plan.channels == 2 and model.upsampler.unet.channels_out == 2
    stages = model.stages()
    assert [stage.name for stage in stages] == ["diffusion", "upsampler", "classifier"]
    assert [stage.share for stage in stages] == pytest.approx([0.4, 0.4, 0.2])
    alone = cascade(facts_of(classes=0), upsampler_share=0.75).stages()
    assert [(stage.name, stage.share) for stage in alone] == [("diffusion", 0.25), ("upsampler", 0.75)]
    assert system().upsampler is None and not any("upsampler" in name for name in system().state_dict())


def test_small_images_are_means_over_areas():
    image = torch.rand(2, 3, 12, 8, dtype=torch.float64)
    same(shrunk(image, (3, 4)), image.unflatten(3, (4, 2)).unflatten(2, (3, 4)).mean((3, 5)))
    odd = shrunk(image, (5, 3))  # areas that overlap where the sides do not divide
    rows = [slice(int(i * 12 / 5), -(-(i + 1) * 12 // 5)) for i in range(5)]
    columns = [slice(int(j * 8 / 3), -(-(j + 1) * 8 // 3)) for j in range(3)]
    wanted = [[image[:, :, r, c].mean((2, 3)) for c in columns] for r in rows]
    same(odd, torch.stack([torch.stack(row, -1) for row in wanted], -2))


def test_an_upsamplers_loss_is_that_of_its_network_beside_the_enlarged_image():
    """Written out: what is shown is the mean over areas, enlarged between the middles of its pixels, behind the channels of x_t."""
    model = cascade(facts_of(side=8, channels=3)).upsampler.double()
    batch = {"image": torch.rand(4, 3, 8, 8, dtype=torch.float64), "label": torch.tensor([0, 1, 2, -1])}
    viewed = model.views(batch, Draw(0, 0, 4))
    assert viewed["image"].shape == viewed["noise"].shape == (4, 3, 8, 8)
    x0, t, noise = 2 * viewed["image"] - 1, viewed["time"], viewed["noise"]
    kept = model.process.alpha_bar[t].view(-1, 1, 1, 1)
    xt = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
    low = x0.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    line = torch.zeros(8, 4, dtype=torch.float64)  # each pixel lies a quarter off the middle of a small one
    for place in range(8):
        at = min(max((place + 0.5) / 2 - 0.5, 0), 3)
        line[place, int(at)] += 1 - (at - int(at))
        line[place, min(int(at) + 1, 3)] += at - int(at)
    shown = torch.einsum("ij,bcjk,lk->bcil", line, low, line)
    same(enlarged(low, (8, 8)), shown)
    output = model.unet(torch.cat([xt, shown], 1), model.process.time[t], viewed["label"])
    error, bound = hybrid_terms(model.process, output, x0, xt, t, noise)
    found = model.loss(viewed)
    same(found["loss"], (error + model.config.vlb * 1000 * bound).mean())
    weight = model.unet.input_blocks[0][0].weight
    slopes = [
        torch.autograd.grad(loss, weight)[0]
        for loss in (found["loss"], (error + model.config.vlb * 1000 * bound).mean())
    ]
    same(*slopes)
    assert slopes[0][:, 3:].abs().min() > 0


def test_the_first_model_and_the_classifier_learn_small_images():
    model = cascade()
    batch = {"image": torch.rand(4, 1, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
    for part in (model.diffusion, model.classifier):
        viewed = part.views(batch, Draw(0, 0, 4))
        assert viewed["image"].shape == viewed["noise"].shape == (4, 1, 4, 4) and torch.isfinite(
            part.loss(viewed)["loss"]
        )
    flat = model.diffusion.views({**batch, "image": torch.full((4, 1, 8, 8), 0.3)}, Draw(0, 0, 4))["image"]
    assert torch.allclose(flat, torch.tensor(0.3))


def test_a_cascade_draws_by_seed_row_by_row_and_guidance_steers_what_is_enlarged():
    model = cascade(draw_steps=3)
    labels = torch.tensor([0, 1, 2])
    drawn = model.draw([5, 6, 7], labels=labels, guidance=1e3)
    assert drawn.shape == (3, 1, 8, 8) and drawn.dtype == torch.uint8
    assert torch.equal(model.draw([7], labels=labels[2:], guidance=1e3)[0], drawn[2])
    assert not torch.equal(model.draw([5, 6, 7], labels=labels, guidance=0.0), drawn)
    told = []
    model.draw([5], progress=told.append)
    assert told == sorted(told) and told[-1] == 1 and len(told) == 6
    begun = model.draw([5], start=torch.full((1, 1, 8, 8), 200, dtype=torch.uint8), strength=0.34)
    assert begun.shape == (1, 1, 8, 8)


def test_an_upsampler_enlarges_what_it_is_given():
    model = cascade(draw_steps=3)
    low = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    drawn = model.upsample([1, 2], low)
    assert torch.equal(model.upsample([2], low[1:])[0], drawn[1]) and drawn.shape == (2, 1, 8, 8)
    assert not torch.equal(model.upsample([1, 2], 255 - low), drawn)
    with pytest.raises(PapertrialError, match="enlarges 2 images of"):
        model.upsample([1, 2], drawn)
    with pytest.raises(PapertrialError, match="enlarges nothing"):
        system().upsample([1, 2], low)
    with pytest.raises(Declined, match="no bound of its own"):
        model.bits_per_dim(drawn)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"low": 8}, "low is 8"), ({"low": -1}, "low is -1"), ({"low": 2}, "give a larger --set low"),
     ({"low": 4, "upsampler_share": 1.0}, "upsampler_share")],
)  # fmt: skip
def test_cascades_that_cannot_be(settings, words):
    with pytest.raises(PapertrialError, match=words):
        system(**settings)


def test_a_cascade_is_fitted_and_drawn_from_by_commands(papertrial, tmp_path):
    words = (
        "fit",
        "guided_diffusion",
        "--data",
        "digits",
        "--recipe",
        "tiny",
        "--set",
        "low=4",
        "--set",
        "draw_steps=2",
    )
    code, _, err = papertrial(*words, "--budget", "8steps", "--out", "run", "-q")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "run" / "stages").iterdir()) == [
        "1-diffusion", "2-upsampler", "3-classifier",
    ]  # fmt: skip
    code, _, err = papertrial("generate", "run", "--label", "3", "--samples", 2, "--guidance", 2, "--out", "pictures")
    assert code == 0, err
    assert len(list((tmp_path / "pictures").glob("3-*.png"))) == 2
    code, _, err = papertrial(*words[:-4], "--set", "low=8", "--out", "wrong")
    assert code == 2 and "low is 8, and the images are 8 x 8" in err


def test_the_authors_two_models_make_a_cascade(tmp_path):
    """As their files hold them: a U-Net, and an upsampler that reads twice the channels and gives as many."""
    base, above = Plan(3, 32, (1, 2), 1, (0, 1)), Plan(6, 32, (1, 2), 1, (1,))
    networks = {"base.pt": UNet(base, 6), "upsampler.pt": UNet(above, 6)}
    for name, network in networks.items():
        torch.save(randomised(network, scale=0.05).state_dict(), tmp_path / name)
    files = [tmp_path / name for name in networks]
    model = guided_diffusion.load(*files, heads=1, side=4, schedule="cosine")
    assert model.first == (3, 4, 4) and model.shape == (
        3,
        16,
        16,
    )  # four times, where the file is none of the published
    assert model.draw([0], steps=2).shape == (1, 3, 16, 16)
    same(model.upsampler.unet.out[2].weight, networks["upsampler.pt"].out[2].weight)
    with pytest.raises(PapertrialError, match="2 upsamplers"):
        guided_diffusion.load(files[0], files[1], files[1], heads=1, side=4, schedule="cosine")
    config, _ = resolve(Config, facts_of(channels=3, classes=0), {"test": {
        "width": 32, "multipliers": (1, 2), "groups": 32, "head_width": 64, "blocks": 1, "attention": 4, "low": 4,
        "upsampler_width": 32, "pretrained": ",".join(map(str, files)),
    }})  # fmt: skip
    begun = build(config, facts_of(channels=3, classes=0))
    same(begun.upsampler.unet.out[2].weight, networks["upsampler.pt"].out[2].weight)
    same(begun.diffusion.unet.out[2].weight, networks["base.pt"].out[2].weight)


# --------------------------------------------------------------------------------------------------------------- claims

EXACT = [claim.name for claim in claims_of(claims) if claim.kind in ("identity", "property")]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_claims_hold(name, seed):
    held, measured = getattr(claims, name)("tiny", seed)
    assert held, measured


def test_claims_notice_what_is_wrong(monkeypatch):
    def wrong(name, change, claim):
        with monkeypatch.context() as patch:
            place = next(place for place in (Process, guided_diffusion, walk) if hasattr(place, name))
            patch.setattr(place, name, change(getattr(place, name)))
            assert not getattr(claims, claim)("tiny", 0)[0], claim

    wrong(
        "ddim_step",
        lambda right: lambda *a, **k: right(*a[:5], None if a[5] is None else 2 * a[5]),
        "guidance_is_bayes_rule",
    )
    wrong(
        "respaced",
        lambda right: lambda self, times: Process(self.beta.numpy()[times], times),
        "respacing_keeps_the_noise",
    )
    wrong("betas", lambda right: lambda *a: 1.001 * right(*a), "schedules_end_where_they_should")
    wrong("noise_of", lambda right: lambda *a: 0.99 * right(*a), "guidance_is_bayes_rule")
    wrong("x0_of", lambda right: lambda *a: 0.99 * right(*a), "perfect_prediction_costs_nothing")


def test_trends_draw_what_they_measured(monkeypatch):
    figures = {f"{name}_{at}": at / 10 for name in trends.METRICS for at in trends.SCALES}
    for claim in claims_of(claims):
        if claim.plot is not None:
            for line in claim.plot([figures, figures]).curves:
                assert line.x == (0, 1, 2, 5, 10)
                assert line.y == (0, 0.1, 0.2, 0.5, 1.0)
