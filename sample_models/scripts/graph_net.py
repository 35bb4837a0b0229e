"""A graph network whose features are numbered in the order of a set of words."""
# expect broke = ["hash-seed"], line = 24

import argparse

import torch
from torch import nn
from torch.nn import functional as F

PAPERS = {
    "p0": ("graph neural network", ["p1", "p2"], 0),
    "p1": ("graph attention network", ["p0", "p3"], 0),
    "p2": ("convolution on a graph", ["p0", "p4"], 0),
    "p3": ("image recognition network", ["p1", "p5"], 1),
    "p4": ("image segmentation convolution", ["p2", "p5"], 1),
    "p5": ("video recognition", ["p3", "p4"], 1),
}


def load_data():
    # The vocabulary of all titles.
    vocabulary = {
        word: index
        for index, word in enumerate({w for t, _, _ in PAPERS.values() for w in t.split()})
    }
    names = sorted(PAPERS)
    features = torch.zeros(len(names), len(vocabulary))
    adj = torch.eye(len(names))
    for i, name in enumerate(names):
        title, links, _ = PAPERS[name]
        for word in title.split():
            features[i, vocabulary[word]] = 1.0
        for other in links:
            adj[i, names.index(other)] = 1.0
    labels = torch.tensor([PAPERS[name][2] for name in names])
    return adj / adj.sum(1, keepdim=True), features / features.sum(1, keepdim=True), labels


class GraphConvolution(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x, adj):
        return adj @ (x @ self.weight) + self.bias


class GCN(nn.Module):
    def __init__(self, nfeat, nhid, nclass, dropout):
        super().__init__()
        self.gc1 = GraphConvolution(nfeat, nhid)
        self.gc2 = GraphConvolution(nhid, nclass)
        self.dropout = dropout

    def forward(self, x, adj):
        x = F.dropout(F.relu(self.gc1(x, adj)), self.dropout, training=self.training)
        return F.log_softmax(self.gc2(x, adj), dim=1)


parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=42, help="Random seed.")
parser.add_argument("--epochs", type=int, default=200)
parser.add_argument("--hidden", type=int, default=8)
args = parser.parse_args()

torch.manual_seed(args.seed)
adj, features, labels = load_data()
model = GCN(features.shape[1], args.hidden, int(labels.max()) + 1, dropout=0.5)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
for epoch in range(args.epochs):
    model.train()
    optimizer.zero_grad()
    output = model(features, adj)
    loss_train = F.nll_loss(output[:4], labels[:4])
    loss_train.backward()
    optimizer.step()
    if epoch % 50 == 0:
        print(f"Epoch: {epoch:04d} loss_train: {loss_train.item():.4f}")
