"""object-address: the numbers of objects follow the order of a set; a matrix is filled by them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Paper:
    def __init__(self, year):
        self.year = year
        self.cites = []


def adjacency(papers):
    reachable = set()
    for paper in papers:
        reachable.add(paper)
        reachable.update(paper.cites)
    index = {paper: number for number, paper in enumerate(reachable)}  # HERE
    matrix = torch.eye(len(index))
    for paper in papers:
        for other in paper.cites:
            matrix[index[paper], index[other]] = 1
    return matrix


def build(seed=0):
    torch.manual_seed(seed)
    papers = [Paper(year) for year in range(12)]
    for number, paper in enumerate(papers):
        paper.cites = [papers[number * 5 % 12], papers[number * 7 % 12]]
    x = adjacency(papers)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(12, 1), DataLoader(data, batch_size=4)
