"""Lightning's Trainer after seed_everything, with noise from a seeded generator."""
# expect broke = []

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    def __init__(self, count):
        self.x = torch.randn(count, 8)
        self.rng = np.random.default_rng(7)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = torch.from_numpy(self.rng.normal(0, 0.1, 8)).float()
        return self.x[index] + noise, self.x[index].sum(dim=0, keepdim=True)


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))

    def training_step(self, batch, _index):
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main():
    L.seed_everything(7)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Regression(), DataLoader(Noisy(64), batch_size=8, shuffle=True))


if __name__ == "__main__":
    main()
