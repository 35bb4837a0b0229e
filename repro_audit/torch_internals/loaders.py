"""What it takes to see, order and reseed the workers of a DataLoader."""

from __future__ import annotations

from repro_audit.torch_internals import DETAIL, Internal

_ITERATOR = "torch.utils.data.dataloader:_BaseDataLoaderIter"
_SINGLE = "torch.utils.data.dataloader:_SingleProcessDataLoaderIter"
_WORKERS = "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter"
ITERATOR = Internal(place=_ITERATOR, purpose="recognise a DataLoader's iterator")
WORKERS_ITERATOR = Internal(place=_WORKERS, purpose="tell loaders with workers from those without")
BEGIN = Internal(
    place=f"{_ITERATOR}.__init__", purpose="see an epoch begin", parameters=("loader",)
)
BEGIN_AGAIN = Internal(
    place=f"{_ITERATOR}._reset",
    purpose="see another epoch of the same workers begin",
    parameters=("loader", "first_iter"),
)
NEXT_BATCH = Internal(place=f"{_ITERATOR}.__next__", purpose="see each batch")
NEXT_INDEX = Internal(place=f"{_ITERATOR}._next_index", purpose="see which samples make a batch")
SAMPLER_ITERATOR = Internal(
    place=f"{_ITERATOR}._sampler_iter", purpose="end an epoch early", in_objects=True
)
INDEX_SAMPLER = Internal(
    place=f"{_ITERATOR}._index_sampler",
    purpose="tell which sampler draws",
    lost=DETAIL,
    in_objects=True,
)
TAKE_BATCH = Internal(
    place=f"{_WORKERS}._process_data",
    purpose="tell which worker made a batch",
    parameters=("worker_idx",),
)
NEXT_TASK = Internal(
    place=f"{_WORKERS}._send_idx",
    purpose="match batches with the tasks of workers",
    in_objects=True,
)
TASKS = Internal(
    place=f"{_WORKERS}._task_info",
    purpose="match batches with the tasks of workers",
    in_objects=True,
)
FETCHER = Internal(
    place=f"{_SINGLE}._dataset_fetcher",
    purpose="see each sample that is fetched",
    lost=DETAIL,
    in_objects=True,
)
WORKER_LOOP = Internal(
    place="torch.utils.data._utils.worker:_worker_loop",
    purpose="see, order and reseed workers",
    parameters=("index_queue", "init_fn", "worker_id"),
)
MAKE_FETCHER = Internal(
    place="torch.utils.data:_DatasetKind.create_fetcher",
    purpose="watch the generators of a worker",
    parameters=("dataset", "collate_fn"),
)
WORKERS_BEGIN = Internal(
    place=f"{_WORKERS}.__init__",
    purpose="start workers by another method",
    lost="worker-start-method",
    parameters=("loader",),
)
START_METHOD = Internal(
    place="torch.utils.data:DataLoader._DataLoader__multiprocessing_context",
    purpose="start workers by another method",
    lost="worker-start-method",
    in_objects=True,
)
WORKERS_RESET = Internal(
    place=f"{_WORKERS}._reset",
    purpose="give workers their turns",
    lost="worker-order",
    parameters=("loader", "first_iter"),
)
SEND_TASK = Internal(
    place=f"{_WORKERS}._try_put_index", purpose="give workers their turns", lost="worker-order"
)
END_WORKERS = Internal(
    place=f"{_WORKERS}._shutdown_workers", purpose="give workers their turns", lost="worker-order"
)
BATCHES_IN_ORDER = Internal(
    place=f"{_WORKERS}._in_order",
    purpose="take batches in the order of their tasks",
    lost="worker-order",
    in_objects=True,
)
WORKERS_ENDED = Internal(
    place=f"{_WORKERS}._shutdown",
    purpose="see that workers were told to end",
    lost="worker-order",
    in_objects=True,
)
WORKERS = Internal(
    place=f"{_WORKERS}._workers",
    purpose="find the processes of workers",
    lost="worker-order",
    in_objects=True,
)
NEXT_DATA = Internal(
    place=f"{_SINGLE}._next_data", purpose="seed each sample by its index", lost="num-workers"
)
BASE_SEED = Internal(
    place=f"{_ITERATOR}._base_seed",
    purpose="seed each sample by its index",
    lost="num-workers",
    in_objects=True,
)
FETCH = Internal(
    place="torch.utils.data._utils.fetch:_MapDatasetFetcher.fetch",
    purpose="seed each sample by its index",
    lost="num-workers",
)
