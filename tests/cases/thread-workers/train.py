"""Workers that are threads, as MONAI's `ThreadDataLoader(use_thread_workers=True)` has them: torch takes them for
processes. Samples follow from their index, so nothing else decides what they are.
"""

import queue
import threading
from multiprocessing.context import SpawnContext

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class LikeProcess(threading.Thread):
    @property
    def pid(self):
        return id(self)


class LikeProcessQueue(queue.Queue):
    def close(self):
        pass

    def cancel_join_thread(self):
        pass


class Rows(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        x = torch.randn(6, generator=torch.Generator().manual_seed(index))
        return x, x[:1]


def threads():
    context = SpawnContext()
    context.Process, context.Queue = LikeProcess, LikeProcessQueue
    return context


def build(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(6, 1)
    return model, DataLoader(Rows(), batch_size=8, num_workers=2, multiprocessing_context=threads()), nn.MSELoss()


class Buffered(DataLoader):
    """And the whole iterator read by a thread too."""

    def __iter__(self):
        ready, batches, end = queue.Queue(1), super().__iter__(), object()

        def fill():
            for batch in batches:
                ready.put(batch)
            ready.put(end)

        reader = threading.Thread(target=fill, daemon=True)
        reader.start()
        while (batch := ready.get()) is not end:
            yield batch
        reader.join()


def buffered(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(6, 1)
    loader = Buffered(Rows(), batch_size=8, num_workers=2, multiprocessing_context=threads())
    return model, loader, nn.MSELoss()


if __name__ == "__main__":
    for make in (build, buffered):
        model, loader, loss = make()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(3):
            for x, y in loader:
                optimizer.zero_grad()
                loss(model(x), y).backward()
                optimizer.step()
        print(model.weight.sum().item())
