"""A small training that the tests run here, and on several ranks: `trainee.py FOLDER NAME` under torchrun."""

import os
import sys

import numpy as np
import torch
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.nn.heads import Supervised
from papertrial.train import checkpoint
from papertrial.train.loop import train


class Net(nn.Module):
    """A table network with dropout and batch norm."""

    def __init__(self, inputs=6, width=8, dropout=0.2):
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, width), nn.Tanh()
        )

    def forward(self, x):
        return self.layers(x)


class Double(nn.Module):
    """Two float64 layers that take float32."""

    def __init__(self, inputs, hidden, width):
        super().__init__()
        self.width = width
        self.first, self.second = nn.Linear(inputs, hidden).double(), nn.Linear(hidden, width).double()

    def forward(self, x):
        return self.second(self.first(x.double()).tanh())


class Twin(nn.Module):
    """An objective with views, a moving teacher in buffers, and a dict of losses; float64 and blind to batch size."""

    inputs = ("numeric",)

    def __init__(self):
        super().__init__()
        self.encoder = Double(6, 8, 4)
        self.register_buffer("teacher", torch.zeros(8, 6, dtype=torch.float64))
        self.register_buffer("unsaved", torch.zeros(()), persistent=False)

    def views(self, batch, draw):
        x = batch["numeric"].double()
        return {"clean": x, "noisy": x + 0.1 * draw.normal(x.shape[1])}

    def loss(self, batch):
        apart = (self.encoder(batch["noisy"]) - batch["clean"][:, :4].sin()).square().mean()
        pull = (self.encoder.first.weight - self.teacher).square().mean()
        return {"loss": apart + 0.1 * pull, "apart": apart, "unsaved": self.unsaved}

    def after_step(self, progress):
        self.teacher.lerp_(self.encoder.first.weight.detach(), 0.1 * (1 - progress))
        self.unsaved += 1


def table(rows=100, seed=0):
    generator = np.random.default_rng(seed)
    numeric = generator.normal(size=(rows, 6)).astype(np.float32)
    label = (numeric[:, 0] + numeric[:, 1] ** 2 > 0.5).astype(np.int64)
    return Split({"numeric": numeric, "label": label})


def supervised(**options):
    torch.manual_seed(1)
    return Supervised(Net(**options), 2, inputs=("numeric",))


def twin():
    torch.manual_seed(1)
    return Twin()


CONFIGS = {
    "adamw": (supervised, Optim(batch=20, lr=1e-2)),
    "sgd-ema": (supervised, Optim(optimizer="sgd", batch=20, lr=0.1, ema=0.99, schedule="constant")),
    "lars-accumulate": (twin, Optim(optimizer="lars", batch=20, lr=1.0, accumulate=3, ema=0.9)),
    "patience-ema": (supervised, Optim(batch=20, lr=1e-2, patience=2, ema=0.9)),
    "bf16": (supervised, Optim(batch=20, lr=1e-2, precision="bf16")),
}


def start(name, folder, *, steps=40, checkpoint_seconds=0.0, **more):
    """(model, meter) after training configuration `name` in `folder`."""
    make, optim = CONFIGS[name]
    model, split = make(), table()

    def validate():  # a bumpy score, so that the best epoch is not the last
        assert not model.training
        return float(-model.loss({key: torch.from_numpy(split[key]) for key in ("numeric", "label")}).detach())

    options = {"seed": 3, "validate": validate, "progress": False, "device": "cpu", "log_every": 1, **more}
    run = Run(folder)
    return model, train(model, split, optim, Budget(steps=steps), run, checkpoint_seconds=checkpoint_seconds, **options)


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in checkpoint.model_tensors(model).items()}


def program(folder, name):
    """A training by the processes that meet here; the main one leaves its weights in FOLDER.end."""
    torch.set_num_threads(1)
    trained, _ = start(name, folder, steps=12, checkpoint_seconds=30.0)
    if os.environ["RANK"] == "0":
        found = {key: tensor.contiguous() for key, tensor in weights(trained).items()}
        checkpoint.save_file(found, f"{folder}.end")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    program(*sys.argv[1:])
