"""Link prediction with torch_geometric, seeded for PyTorch alone: negative_sampling draws from Python's generator."""
# expect broke = ["python-rng"], line = 34

import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import negative_sampling


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(8, 16), GCNConv(16, 8)

    def forward(self, x, edges):
        return self.second(self.first(x, edges).relu(), edges)


def scores(z, edges):
    return (z[edges[0]] * z[edges[1]]).sum(dim=1)


def main():
    torch.manual_seed(0)
    ring = torch.arange(40)
    edges = torch.stack([ring, (ring + 1) % 40])
    graph = Data(x=torch.randn(40, 8), edge_index=torch.cat([edges, edges.flip(0)], dim=1))
    model = Encoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(20):
        optimizer.zero_grad()
        z = model(graph.x, graph.edge_index)
        wrong = negative_sampling(graph.edge_index, num_nodes=40, method="sparse")
        right = scores(z, graph.edge_index)
        logits = torch.cat([right, scores(z, wrong)])
        labels = torch.cat([torch.ones(len(right)), torch.zeros(wrong.shape[1])])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: {loss.item():.4f}")


if __name__ == "__main__":
    main()
