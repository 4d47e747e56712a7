"""Fit a linear model with Hugging Face's Trainer: nothing here is made for this service. Needs transformers[torch].

simulations submit --watch -- python examples/transformers_trainer.py
"""

from __future__ import annotations

import sys

try:
    import torch
    from transformers import Trainer, TrainingArguments
except ImportError as missing:
    sys.exit(f"{missing}: pip install 'transformers[torch]'")


class Line(torch.nn.Module):
    """A line through points."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x, labels):
        logits = self.layer(x).squeeze(-1)
        return {"loss": torch.nn.functional.mse_loss(logits, labels), "logits": logits}


torch.manual_seed(0)
x = torch.randn(256, 4)
data = [{"x": each, "labels": each.sum()} for each in x]
arguments = TrainingArguments(
    "checkpoints", num_train_epochs=3, logging_steps=8, eval_strategy="epoch", save_strategy="no", learning_rate=0.02
)
Trainer(Line(), arguments, train_dataset=data, eval_dataset=data[:64]).train()
