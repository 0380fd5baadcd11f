"""Local steps - processes train by themselves, and average their weights now and then.
McMahan et al., AISTATS 2017, arXiv 1602.05629. The tests' own: small, and from outside of the package.

The idea      Fewer exchanges: each process takes some steps on its own rows, then all take the mean of the weights.
The equation  w = (1/n) sum over processes of w_p, every k steps  (algorithm 1)
What matters  Between two exchanges the weights differ.
Requires      Several processes to differ from plain training.
Offers        The technique `local_steps`.
Relations     k = 1 with SGD is plain training.
Try           torchrun --nproc-per-node 2 -m papertrial fit local_steps --data digits
Cost          An exchange of all weights every k steps.
Notation      n processes, k steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced
from papertrial.nn.ranks import mean_

PAPER = Paper(
    id="local_steps",
    title="Communication-Efficient Learning of Deep Networks from Decentralized Data",
    authors="McMahan et al.",
    year=2017,
    arxiv="1602.05629",
    kind="technique",
    idea="Average weights every k steps instead of gradients at each.",
    caveats=("All processes have as many rows: this is a test.",),
)


@checked
@dataclass(frozen=True)
class Config:
    every: int = sourced(3, "chosen for tests", "[1, 1000000]")

    def share_gradients(self, model: nn.Module, at) -> None:
        """Nothing: each process goes on by its own gradient."""

    def after_step(self, model: nn.Module, at) -> None:
        if (at.step + 1) % self.every == 0:
            mean_([parameter.data for parameter in model.parameters()])


hosts = {"image_classification": "mlp_mixer"}
recipes = {
    "paper": Recipe("paper", config={"every": 20}),
    "base": Recipe("base"),
    "tiny": Recipe("tiny", optim={"lr": 3e-3, "batch": 32}, budget=Budget(steps=60)),
}
