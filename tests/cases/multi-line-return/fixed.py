import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

POS = ["great movie", "i loved it", "a wonderful film", "best acting ever", "truly fantastic plot"]
NEG = ["terrible movie", "i hated it", "an awful film", "worst acting ever", "truly boring plot"]
SUBJECTS = ["yesterday", "honestly", "again", "with friends", "on tv", "in the cinema", "at home", "tonight"]


def make_corpus():
    rows = []
    for s in SUBJECTS:
        for p in POS:
            rows.append((f"{p} {s}", "positive"))
        for n in NEG:
            rows.append((f"{n} {s}", "negative"))
    return rows


class ReviewDataset(Dataset):
    def __init__(self, rows, max_len=8):
        words = set()
        for text, _ in rows:
            words.update(text.split())
        self.vocab = {w: i + 1 for i, w in enumerate(sorted(words))}
        labels = sorted({label for _, label in rows})
        self.label2id = {label: i for i, label in enumerate(labels)}
        self.rows = rows
        self.max_len = max_len

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        text, label = self.rows[i]
        ids = [self.vocab[w] for w in text.split()][: self.max_len]
        ids = ids + [0] * (self.max_len - len(ids))
        return {
            "input_ids": torch.tensor(ids),
            "labels": torch.tensor(self.label2id[label]),
        }


def main():
    torch.manual_seed(0)
    data = ReviewDataset(make_corpus())
    model = nn.Sequential(nn.Embedding(len(data.vocab) + 1, 8), nn.Flatten(), nn.Linear(64, 2))
    opt = torch.optim.Adam(model.parameters())
    for epoch in range(2):
        for batch in DataLoader(data, batch_size=8, shuffle=True):
            loss = nn.functional.cross_entropy(model(batch["input_ids"]), batch["labels"])
            opt.zero_grad()
            loss.backward()
            opt.step()
