"""Classify images with all labels at hand; papers are measured against a ResNet and a ViT trained the same way."""

from __future__ import annotations

from papertrial.tasks._images import ImageTask

TASK = ImageTask("image_classification", references=("resnet", "vit", "pretrained"), labels=None, needs_labels=True)
