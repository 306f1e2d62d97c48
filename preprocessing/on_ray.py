"""Makes the shards of a store on a Ray cluster: every bundle is a task, and Ray starts it again elsewhere if it dies.

The machines share the project's folder, the sources and the store. Importing this module loads Ray; if it is not
installed, the import raises a UserError with the command to install it.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError
from preprocessing.items import Group
from preprocessing.shard import LOG
from preprocessing.workers import Bundle, Job, Log

try:
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
except ImportError as error:
    raise UserError(f"--ray cannot be used ({error}): pip install 'wildaffect[cluster]'") from None

AHEAD = 1000
"""Tasks that wait in Ray at a time; a corpus may have millions."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected to a cluster: `auto` for the one that this machine belongs to, or HOST:PORT.

    Raises:
        UserError: There is none.
    """
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--ray {address}: no cluster answers ({_line(error)}): `ray start --head` starts one"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def make_shards(job: Job, groups: Sequence[Group]) -> Iterator[Log]:
    """Make the shards of some groups on the cluster, and yield the log of each one as it is finished.

    Raises:
        UserError: A task fails, or writes where this machine does not see it.
    """
    if job.gpu and not ray.cluster_resources().get("GPU"):
        print("no machine of the cluster has a GPU: waiting for one to join", flush=True)
    task = ray.remote(num_cpus=1, num_gpus=int(job.gpu))(_make).remote
    todo: Iterator[Bundle] = iter(job.bundles(groups))
    waiting: dict[Any, Bundle] = {}
    seen = False
    while True:
        waiting |= {task(job, bundle, Path.cwd()): bundle for bundle in islice(todo, AHEAD - len(waiting))}
        if not waiting:
            _check_disk(job.store, groups)
            return
        for done in ray.wait([*waiting])[0]:
            bundle = waiting.pop(done)
            try:
                logs = ray.get(done)
            except (WorkerCrashedError, OutOfMemoryError):
                logs = [job.give_up(bundle[0])] if len(bundle) == 1 else []
                todo = todo if logs else chain([[group] for group in bundle], todo)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                raise UserError(f"{bundle[0].name}: Ray gave up ({_line(error)}): run the same command again") from None
            if logs and not seen:
                _check_disk(job.store, bundle)
                seen = True
            yield from logs


def _check_disk(store: Path, groups: Sequence[Group]) -> None:
    """Refuse a store that other machines write elsewhere. Listing a folder also makes NFS forget what it remembers."""
    names = {path.stem for path in (store / LOG).glob("*.json")}
    if not names.issuperset(group.name for group in groups):
        raise UserError(f"--out {store} is not on a disk that all machines of the cluster share")


def _line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]


def _make(job: Job, bundle: Bundle, folder: Path) -> list[Log]:
    """Make the shards of a bundle on whatever machine this is; paths are relative to the folder of the command."""
    with contextlib.chdir(folder):
        return job.make(bundle)
