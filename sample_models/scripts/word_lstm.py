"""A word language model that clips gradients and updates its parameters by hand."""
# expect broke = []

import argparse
import math
import time

import torch
from torch import nn

SENTENCES = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a bird sang in the tree",
    "the fish swam in the sea",
]


class Corpus:
    def __init__(self, sentences):
        self.word2idx = {}
        ids = []
        for sentence in sentences:
            for word in [*sentence.split(), "<eos>"]:
                ids.append(self.word2idx.setdefault(word, len(self.word2idx)))
        self.train = torch.tensor(ids * 30)


class RNNModel(nn.Module):
    def __init__(self, ntoken, ninp, nhid, dropout=0.2):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid)
        self.decoder = nn.Linear(nhid, ntoken)
        self.nhid = nhid

    def forward(self, tokens, hidden):
        output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        return self.decoder(self.drop(output)).flatten(0, 1), hidden

    def init_hidden(self, bsz):
        return torch.zeros(1, bsz, self.nhid), torch.zeros(1, bsz, self.nhid)


def batchify(data, bsz):
    nbatch = data.size(0) // bsz
    return data.narrow(0, 0, nbatch * bsz).view(bsz, -1).t().contiguous()


def get_batch(source, i, bptt):
    seq_len = min(bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].view(-1)


def main():
    parser = argparse.ArgumentParser(description="word language model")
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--clip", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--bptt", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1111)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    corpus = Corpus(SENTENCES)
    train_data = batchify(corpus.train, 4)
    model = RNNModel(len(corpus.word2idx), 12, 12)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(1, args.epochs + 1):
        total_loss, start_time = 0.0, time.time()
        hidden = model.init_hidden(4)
        for i in range(0, train_data.size(0) - 1, args.bptt):
            data, targets = get_batch(train_data, i, args.bptt)
            model.zero_grad()
            hidden = tuple(h.detach() for h in hidden)
            output, hidden = model(data, hidden)
            loss = criterion(output, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            for p in model.parameters():
                p.data.add_(p.grad, alpha=-args.lr)
            total_loss += loss.item()
        elapsed = time.time() - start_time
        print(f"| epoch {epoch:3d} | {elapsed:5.2f} s | ppl {math.exp(min(total_loss, 20)):8.2f}")


if __name__ == "__main__":
    main()
