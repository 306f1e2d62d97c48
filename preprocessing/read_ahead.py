"""Makes items in a thread, so that frames are decoded while those before them are worked on."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
_END: Any = object()


def read_ahead(items: Iterator[Item], most: int) -> Iterator[Item]:
    """Yield the items of an iterator, of which up to `most` are made before they are asked for.

    It helps where making them releases Python's lock, as FFmpeg does. An error is raised where its item would be.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Item]] = deque(pool.submit(next, items, _END) for _ in range(most))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, items, _END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
