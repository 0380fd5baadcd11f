"""A part of a paper in code of your own: Barlow Twins' loss and projector are plain PyTorch, no framework around them."""

import torch
from torch import nn

from papertrial.papers.barlow_twins import barlow_loss, projector

torch.manual_seed(0)
encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
head = projector(width=64, hidden=256, layers=3)
optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3)

signal = torch.rand(512, 1, 8, 8)
for _ in range(20):
    image = signal[torch.randint(0, 512, (128,))]
    view_a, view_b = (image + 0.1 * torch.randn_like(image) for _ in range(2))
    loss = barlow_loss(head(encoder(view_a)), head(encoder(view_b)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.1f}")
