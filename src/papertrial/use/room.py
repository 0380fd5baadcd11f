"""Do the weights fit into memory? Asked before anything is written, of a network that has shapes and no values."""

from __future__ import annotations

from typing import Any

from papertrial.core.errors import PapertrialError
from papertrial.core.memory import require
from papertrial.core.task import Prepared, Task
from papertrial.train.randomness import drawn_apart
from papertrial.use.card import Resolved, build_model


def weights_of(task: Task, resolved: Resolved, prepared: Prepared) -> int:
    """Bytes of the weights and buffers of a resolved method, which is built on the meta device: no memory, next to no time.

    Random numbers stay as they are. Raises what building it raises.
    """
    import torch

    with drawn_apart(), torch.device("meta"):
        model = build_model(task, resolved, prepared)
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def require_room(task: Task, resolved: Resolved, prepared: Prepared) -> None:
    """Raise OutOfMemory, with the figures, where the weights alone take more memory than there is.

    Weights from elsewhere have the size of their files, and a network of the user's own may not know of the meta device.
    """
    (network, config), made = resolved.network, resolved.host or resolved
    if made.method.paper.kind == "estimator" or getattr(config, "pretrained", False):
        return
    try:
        needed = weights_of(task, resolved, prepared)
    except PapertrialError:
        raise
    except Exception:
        return
    require(needed, f"the weights of {network.name}", "choose smaller sizes with --set")


def built(task: Task, resolved: Resolved, prepared: Prepared) -> Any:
    """The model, where there is room for it. Raises as `require_room` and `build_model` do."""
    require_room(task, resolved, prepared)
    return build_model(task, resolved, prepared)
