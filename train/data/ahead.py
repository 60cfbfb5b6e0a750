"""A cache of crops for later epochs, cut while their image is decoded.

The sample at each later position of a run is known in advance, and its crop depends on nothing else. If the decoded
images of a data set do not fit in memory, crops of the coming epochs, which are far smaller, are cached instead:
batches are the same bit for bit, and an image is decoded only once in several epochs.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from clearfuse.train.data.batch import Item

MAX_VISITS = 4
"""Upper bound of K in ``decode_period``: saves four of five decodings without making the first epoch much longer."""


def crop_capacity(memory: int, pictures: int, crop: int, count: int) -> int:
    """The number of crops to cache in ``memory`` bytes; 0 where caching decoded images saves more decodings.

    pictures: bytes of all decoded images; count: crops per epoch, of ``crop`` bytes each. Caching images of S bytes in
    M bytes of memory saves the share M / S of decodings. Caching crops for K later visits, for K / 2 epochs on average,
    takes K / 2 of an epoch's C bytes and leaves one decoding in 1 + K visits, which is fewer where M < S − C / 2.
    Because K is an integer and the memory is not always full, the measured break-even is 0.85 of that.
    """
    break_even = min(0.85 * (pictures - crop * count / 2), pictures * MAX_VISITS / (1 + MAX_VISITS))
    return memory // crop if memory < break_even else 0


def decode_period(crops: int, count: int) -> int:
    """Visits from one decoding of a sample to the next: 1 + K, K = 2 crops / count (``crop_capacity``), rounded up."""
    return 1 + min(-(-2 * crops // count), MAX_VISITS)


class CropCache:
    """Samples of later positions; if they are too many, those that come first.

    position_of: row and epoch -> position; needed: whether this process will load a position; end: of the run's
    positions; crops: maximum number of samples; period: epochs from one decoding of a row to the next, a multiple of
    ``repeats``, the epochs of a visit. The visits at which rows are decoded are staggered: if all were decoded in the
    same one, the crops of the following ones would have to be cached at once.
    """

    def __init__(
        self,
        position_of: Callable[[int, int], int],
        needed: Callable[[int], bool],
        *,
        end: int,
        crops: int,
        period: int,
        repeats: int = 1,
    ) -> None:
        self._position_of, self._needed = position_of, needed
        self._end, self._crops, self._period, self._repeats = end, crops, period, repeats
        self._items: dict[int, Item] = {}
        self._positions: list[int] = []  # sorted

    def __len__(self) -> int:
        return len(self._items)

    def take(self, position: int) -> Item | None:
        """The cached sample of a position, or None; it and all earlier ones are removed."""
        item = self._items.get(position)
        passed = bisect_right(self._positions, position)
        for earlier in self._positions[:passed]:
            del self._items[earlier]
        del self._positions[:passed]
        return item

    def later(self, row: int, epoch: int) -> Iterator[tuple[int, int]]:
        """Positions and epochs of a row before its next decoding whose sample should be cached now."""
        for later in range(epoch + 1, self._next_decoding(row, epoch)):
            position = self._position_of(row, later)
            full = len(self._positions) == self._crops
            if position >= self._end or (full and position > self._positions[-1]):
                return
            if self._needed(position) and position not in self._items:
                yield position, later

    def _next_decoding(self, row: int, epoch: int) -> int:
        """The next epoch at which a row is decoded."""
        return epoch + self._period - (epoch - row * self._repeats) % self._period

    def add(self, position: int, item: Item) -> None:
        """Cache a sample; if the cache is full, the one with the latest position is dropped."""
        # A view would keep its whole image in memory.
        images = {name: image if image.base is None else np.array(image) for name, image in item.images.items()}
        self._items[position] = replace(item, images=images)
        insort(self._positions, position)
        if len(self._positions) > self._crops:
            del self._items[self._positions.pop()]
