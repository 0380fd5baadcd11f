"""The Hugging Face hub: reaching it, or saying in one line why not, and the licence of what lies there."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from papertrial.core.errors import PapertrialError, missing_extra

NOT_STATED = "not stated by their publisher: ask before you use them"


def client(extra: str) -> ModuleType:
    """The package `huggingface_hub`. Raises PapertrialError that names the extra where it is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise missing_extra("a model of the hub", "huggingface_hub", extra)
    return importlib.import_module("huggingface_hub")


def reach(model: str, extra: str) -> None:
    """One question without retries, so that a machine without a connection is told at once.

    Raises PapertrialError when the hub cannot be reached or has no public model of this name.
    """
    hub = client(extra)
    try:
        hub.HfApi().model_info(model, timeout=20)
    except (hub.errors.RepositoryNotFoundError, hub.errors.HFValidationError) as error:
        raise PapertrialError(
            f"there is no folder and no public model {model!r} on the Hugging Face hub", "check the name"
        ) from error
    except Exception as error:  # whatever the network library of the day raises
        raise PapertrialError(
            f"the Hugging Face hub cannot be reached for {model} ({first_line(error)})",
            "check the connection, or use what is on this machine: a folder, or fresh weights",
        ) from error


def stated_licence(card: str) -> str:
    """What the front matter of a model card says."""
    front = card.partition("---\n")[2].partition("\n---")[0] if card.startswith("---\n") else ""
    stated = re.search(r"^license: *(\S.*)$", front, re.MULTILINE)
    return stated[1].strip(" \"'") if stated else NOT_STATED


@contextmanager
def quiet() -> Iterator[None]:
    """Without the hub's own progress and retry messages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
