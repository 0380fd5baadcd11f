"""From what you have to arrays: images and tables, recognised by themselves, with a facts page."""

from papertrial.data.base import Data, Look
from papertrial.data.open import open

__all__ = ["Data", "Look", "open"]
