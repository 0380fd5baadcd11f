"""Rows that a model makes for itself: it learns, and a kill at any step changes nothing, on any number of processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from papertrial.core.budget import Budget
from papertrial.core.errors import DataError
from papertrial.core.recipe import Optim
from papertrial.core.run import Run
from papertrial.core.task import Ragged, Split, Stage
from papertrial.testing import in_ranks
from papertrial.train.checkpoint import model_tensors, save_file
from papertrial.train.loop import train
from papertrial.train.sources import Rounds, collected, is_source, learnt_from
from papertrial.train.stages import train_stages

STONES, MOST = 12, 3  # who takes the last one wins; a multiple of four is lost for who is to move
OPTIM = Optim(batch=64, lr=0.05, weight_decay=0.0, clip=0.0, schedule="constant", warmup=0.0)


class Player(nn.Module):
    """Plays the game against itself. float64, so that processes can be compared."""

    def __init__(self, every=4):
        super().__init__()
        self.moves = nn.Embedding(STONES + 1, MOST, dtype=torch.float64)
        nn.init.zeros_(self.moves.weight)
        self.every = every

    def chances(self, left):
        legal = torch.arange(1, MOST + 1, device=left.device) <= left[:, None]
        return self.moves(left).masked_fill(~legal, -torch.inf).softmax(1)

    def loss(self, batch):
        chosen = self.chances(batch["left"]).gather(1, batch["taken"][:, None]).squeeze(1)
        return -(batch["gain"].double() * chosen.log()).mean()

    def row_source(self, rows):
        return Games(self)


class Games:
    """64 games of the player as it is. The state counts games."""

    def __init__(self, player):
        self.player, self.every, self.looked = player, player.every, []

    def collect(self, step, state, draw):
        assert not self.player.training and not torch.is_grad_enabled()
        self.looked.append(step)
        left = torch.from_numpy(draw.integers(1, STONES + 1, 64))
        seen, taken, owner, last = [], [], [], torch.zeros(64, dtype=torch.int64)
        for turn in range(STONES):
            on = left > 0
            if not on.any():
                break
            move = torch.multinomial(self.player.chances(left.clamp_min(1)), 1).squeeze(1)
            seen.append(torch.where(on, left, 0))
            taken.append(move)
            owner.append(torch.full((64,), turn % 2))
            left = torch.where(on, left - move - 1, left)
            last = torch.where(on, turn % 2, last)
        seen, taken, owner = torch.stack(seen), torch.stack(taken), torch.stack(owner)
        gain = torch.where(owner == last, 1.0, -1.0)
        rows = {"left": seen[seen > 0], "taken": taken[seen > 0], "gain": gain[seen > 0]}
        games = int(state.get("games", 0)) + 64
        return Split({name: column.numpy() for name, column in rows.items()}), {"games": np.array(games)}


class Interrupt:
    def __init__(self, at, kill=False):
        self.left, self.kill = at, kill

    def after_step(self, model):
        self.left -= 1
        if self.left == 0 and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.left == 0:
            raise KeyboardInterrupt


def start(folder, *, steps=14, techniques=(), seed=5, optim=OPTIM):
    player = Player()
    source = learnt_from(player, Split({}))
    train(
        player, source, optim, Budget(steps=steps), Run(folder), seed=seed, progress=False, device="cpu", log_every=1,
        checkpoint_seconds=0.0, techniques=techniques,
    )  # fmt: skip
    return player, source


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model_tensors(model).items()}


def test_a_player_learns_from_its_own_games(tmp_path):
    player, source = start(tmp_path, steps=200)
    assert source.looked == list(range(0, 200, 4))
    left = torch.tensor([n for n in range(1, STONES + 1) if n % 4])
    best = player.chances(left).argmax(1) + 1
    assert (best == left % 4).float().mean() > 0.8  # leave a multiple of four
    assert (Player().chances(left).argmax(1) + 1 == left % 4).float().mean() < 0.5


def test_rows_are_of_the_model_as_it_is(tmp_path):
    """The second round is what the weights after four steps play, and no other weights would."""
    player, _ = start(tmp_path / "a", steps=4)
    after = Games(player)
    with torch.no_grad():
        rounds = [Rounds(after, 5, _accelerate()), Rounds(Games(Player().eval()), 5, _accelerate())]
        for one in rounds:
            one.state = {"games": np.array(64)}
            one.collect(4)
    kept = Rounds(Games(Player()), 5, _accelerate())
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", techniques=[Interrupt(7)])
    held = load_file(tmp_path / "b" / "checkpoint.safetensors")
    kept.restore({name.removeprefix("rounds/"): t for name, t in held.items() if name.startswith("rounds/")})
    assert kept.begun == 4 and kept.state["games"] == 128
    assert all(np.array_equal(kept.rows[name], rounds[0].rows[name]) for name in ("left", "taken", "gain"))
    assert len(kept.rows["left"]) != len(rounds[1].rows["left"]) or not np.array_equal(
        kept.rows["taken"], rounds[1].rows["taken"]
    )


def _accelerate():
    from papertrial.train.device import accelerator

    return accelerator(device="cpu")


def test_a_kill_at_any_step_changes_nothing(tmp_path):
    whole, _ = start(tmp_path / "whole")
    for at in (1, 3, 4, 5, 2):  # within a round, at its last step, at the first one of the next
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "parts", techniques=[Interrupt(at)])
    again, _ = start(tmp_path / "parts")
    assert torch.equal(weights(whole)["moves.weight"], weights(again)["moves.weight"])
    rows = [
        [(row["step"], row["loss"]) for row in Run(tmp_path / name).history() if "loss" in row]
        for name in ("whole", "parts")
    ]
    assert rows[0] == rows[1]


def test_kill_9(tmp_path):
    """The process kills itself in its sixth update, in a round that it has collected."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_sources as t; "
    code += f"t.start({str(tmp_path / 'parts')!r}, techniques=[t.Interrupt(6, kill=True)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again, _ = start(tmp_path / "parts")
    whole, _ = start(tmp_path / "whole")
    assert torch.equal(weights(whole)["moves.weight"], weights(again)["moves.weight"])


def on_ranks(rank, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT="0")
    player, source = start(folder / "two")
    assert bool(source.looked) == (rank == 0)  # the others get what the first has collected
    save_file(weights(player), folder / f"rank{rank}.safetensors")


def test_two_processes_equal_one(tmp_path):
    wait = in_ranks(on_ranks, tmp_path)
    one, _ = start(tmp_path / "one")
    wait()
    for rank in range(2):
        two = load_file(tmp_path / f"rank{rank}.safetensors")["moves.weight"]
        torch.testing.assert_close(two, one.moves.weight.detach(), rtol=1e-10, atol=1e-12)


def test_a_stage_collects(tmp_path):
    class System(nn.Module):
        def __init__(self):
            super().__init__()
            self.player = Player()

        def stages(self):
            return [Stage("play", self.player, 1.0, rows=self.player.row_source)]

    system = System()
    spent, _ = train_stages(system, Split({"x": np.zeros(3)}), OPTIM, Budget(steps=14), Run(tmp_path / "a"), seed=5)
    assert spent.steps == 14
    assert torch.equal(system.player.moves.weight, start(tmp_path / "b")[0].moves.weight)


def test_what_is_no_batch_any_more_is_refused(tmp_path):
    class Fewer(Games):
        def collect(self, step, state, draw):
            rows, state = super().collect(step, state, draw)
            return rows.take(slice(0, 64 if step == 0 else 10)), state

    player = Player()
    with pytest.raises(ValueError, match="collected 10 rows, which are no batch of 64"):
        train(player, Fewer(player), OPTIM, Budget(steps=6), Run(tmp_path), seed=0, progress=False, device="cpu")


def test_no_rows_at_all(tmp_path):
    class Nothing(Games):
        def collect(self, step, state, draw):
            return Split({"left": np.zeros(0, np.int64)}), {}

    player = Player()
    with pytest.raises(DataError, match="0 training rows"):
        train(player, Nothing(player), OPTIM, Budget(steps=6), Run(tmp_path), seed=0, progress=False, device="cpu")


def test_rows_of_different_length_and_what_is_kept_survive_a_checkpoint():
    class Texts:
        every = 2

        def collect(self, step, state, draw):
            ids = Ragged.of([[1, 2, 3], [4]], pad=7)
            return Split({"ids": ids, "label": np.array([0, 1])}), {"pool": torch.ones(2, 2), "count": np.array(3)}

    rounds, again = Rounds(Texts(), 0, _accelerate()), Rounds(Texts(), 0, _accelerate())
    rounds.collect(6)
    again.restore(rounds.tensors())
    assert again.begun == 6 and not again.due(6) and again.due(8) and not again.due(7)
    assert again.rows["ids"].padded().tolist() == [[1, 2, 3], [4, 7, 7]] and again.rows["label"].tolist() == [0, 1]
    assert again.state["pool"].tolist() == [[1, 1], [1, 1]] and again.state["count"] == 3


def test_what_is_a_source():
    assert is_source(Games(Player())) and not is_source(Split({}))
    player = Player()
    assert collected(Games(player), player, OPTIM, 3).examples > 64
    with pytest.raises(ValueError, match="every 0 steps"):
        Rounds(Games(Player(every=0)), 0, _accelerate())
