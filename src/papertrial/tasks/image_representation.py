"""Learn from images of which few are labelled (10 a class unless asked otherwise).

Papers are measured against a ResNet trained on the few labels alone.
"""

from __future__ import annotations

from papertrial.tasks._images import ImageTask

TASK = ImageTask("image_representation", references=("resnet", "pretrained"), labels=10, needs_labels=False)
