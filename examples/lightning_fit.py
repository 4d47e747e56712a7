"""Fit a linear model with Lightning: nothing here is made for this service. Needs lightning and tensorboard.

simulations submit --watch -- python examples/lightning_fit.py

Its bar shows the newest value of each epoch; every logged step comes from the event files of its logger.
"""

from __future__ import annotations

import sys

try:
    import lightning
    import torch
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.data import DataLoader, TensorDataset
except ImportError as missing:
    sys.exit(f"{missing}: pip install lightning tensorboard")


class Line(lightning.LightningModule):
    """A line through points."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def loss_of(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x).squeeze(-1), y)

    def training_step(self, batch, index):
        loss = self.loss_of(batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss_of(batch), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


torch.manual_seed(0)
x = torch.randn(256, 4)
data = TensorDataset(x, x.sum(1))
trainer = lightning.Trainer(max_epochs=5, log_every_n_steps=4, logger=TensorBoardLogger("."), accelerator="cpu")
trainer.fit(Line(), DataLoader(data, 16, shuffle=True), DataLoader(data, 16))
