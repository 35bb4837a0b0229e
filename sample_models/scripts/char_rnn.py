"""A character RNN whose chunks begin where Python's random says, and only PyTorch is seeded."""
# expect broke = ["python-rng"], line = 38

import argparse
import random
import string

import torch
from torch import nn

TEXT = "the quick brown fox jumps over the lazy dog and runs away from it again. " * 40
ALPHABET = string.printable


class CharRNN(nn.Module):
    def __init__(self, n_characters: int, hidden_size: int, n_layers: int = 1) -> None:
        super().__init__()
        self.n_layers, self.hidden_size = n_layers, hidden_size
        self.encoder = nn.Embedding(n_characters, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, n_layers)
        self.decoder = nn.Linear(hidden_size, n_characters)

    def forward(self, character, hidden):
        encoded = self.encoder(character.view(1, -1))
        output, hidden = self.gru(encoded.view(1, 1, -1), hidden)
        return self.decoder(output.view(1, -1)), hidden

    def init_hidden(self):
        return torch.zeros(self.n_layers, 1, self.hidden_size)


def char_tensor(text):
    return torch.tensor([ALPHABET.index(character) for character in text])


def random_chunk(length):
    # Which part of the text an epoch trains on.
    start = random.randint(0, len(TEXT) - length - 1)
    chunk = TEXT[start : start + length + 1]
    return char_tensor(chunk[:-1]), char_tensor(chunk[1:])


def train(model, optimizer, criterion, chunk, target):
    hidden = model.init_hidden()
    model.zero_grad()
    loss = 0
    for c in range(len(chunk)):
        output, hidden = model(chunk[c], hidden)
        loss = loss + criterion(output, target[c].view(-1))
    loss.backward()
    optimizer.step()
    return loss.item() / len(chunk)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-epochs", type=int, default=2000)
    parser.add_argument("--chunk-len", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    args = parser.parse_args()

    torch.manual_seed(1337)
    decoder = CharRNN(len(ALPHABET), hidden_size=16)
    decoder_optimizer = torch.optim.Adam(decoder.parameters(), lr=args.learning_rate)
    cross_entropy = nn.CrossEntropyLoss()
    for epoch in range(1, args.n_epochs + 1):
        epoch_loss = train(decoder, decoder_optimizer, cross_entropy, *random_chunk(args.chunk_len))
        if epoch % 100 == 0:
            print(f"[{epoch}/{args.n_epochs}] {epoch_loss:.4f}")
