import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class VariationalGRU(nn.GRU):
    """One mask a sequence; its forward is its own and never calls GRU's."""

    masks = torch.Generator().manual_seed(3)

    def forward(self, x, hidden=None):
        hidden = x.new_zeros(x.shape[0], self.hidden_size)
        rows = []
        for row in x.unbind(1):
            hidden = torch.gru_cell(row, hidden, *self._flat_weights[:4])
            rows.append(hidden)
        out = torch.stack(rows, 1)
        if not self.training or not self.dropout:
            return out, hidden
        keep = torch.rand(out.shape[0], 1, out.shape[2], generator=self.masks)
        return out * (keep >= self.dropout) / (1 - self.dropout), hidden


class Tagger(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


def build(seed=0):
    torch.manual_seed(seed)
    rnn = VariationalGRU(5, 16, batch_first=True)
    rnn.dropout = 0.3
    x = torch.randn(64, 7, 5, generator=torch.Generator().manual_seed(6))
    return Tagger(rnn), DataLoader(TensorDataset(x, x[..., :1]), batch_size=8), nn.MSELoss()
