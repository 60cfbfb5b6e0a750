"""Crops that are cut before their turn, while their picture is decoded anyway.

Which sample stands at each later position of a run is known, and what is drawn for it hangs on nothing else. So of a
set whose pictures do not fit in memory, crops of the epochs to come are kept instead, which are far smaller: what a
batch holds is the same to the bit, and a picture is decoded once in several epochs.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from train.batch import Item

VISITS = 4
"""Later visits for which crops are cut at one decoding, at most: four decodings of five are saved, and the first epoch
is not much longer."""


def room(memory: int, picture: float, crop: int, count: int) -> int:
    """Crops that ``memory`` bytes have room for; 0 where whole pictures are better kept there.

    Of N = ``count`` pictures of S bytes, memory of M keeps a share M / (N S) from being decoded. K crops of c bytes
    that come at the K next visits are held for K / 2 epochs in the mean: with K = 2 M / (N c), at most ``VISITS``, one
    visit of 1 + K is a decoding, which is less as long as M < N (S − c / 2).
    """
    pictures = min(picture - crop / 2, picture * VISITS / (1 + VISITS))
    return memory // crop if memory < count * pictures else 0


def period(crops: int, count: int) -> int:
    """Visits from one decoding of a sample to its next, where so many crops are held: 1 + K, see ``room``."""
    return 1 + min(-(-2 * crops // count), VISITS)


class Ahead:
    """Samples of later positions: of those worth holding the soonest, which nothing does better (Belady, 1966).

    where: row and epoch -> position; asked: whether this process will be asked for a position; end: where the run's
    positions end; crops: samples held at most; epochs: from one decoding of a row to its next. Rows are decoded in
    turns, or all of an epoch would be, and the next ones' crops would have to be held at once.
    """

    def __init__(
        self,
        where: Callable[[int, int], int],
        asked: Callable[[int], bool],
        *,
        end: int,
        crops: int,
        epochs: int,
    ) -> None:
        self._where, self._asked = where, asked
        self._end, self._crops, self._epochs = end, crops, epochs
        self._held: dict[int, Item] = {}
        self._positions: list[int] = []  # of them, sorted

    def __len__(self) -> int:
        return len(self._held)

    def take(self, position: int) -> Item | None:
        """The sample of a position, if it was made before; neither it nor one before it is held any longer."""
        item = self._held.get(position)
        passed = bisect_right(self._positions, position)
        for one in self._positions[:passed]:
            del self._held[one]
        del self._positions[:passed]
        return item

    def later(self, row: int, epoch: int) -> Iterator[tuple[int, int]]:
        """Positions and epochs of a row until its next turn, whose sample is worth making now."""
        for later in range(epoch + 1, epoch + self._epochs - (epoch - row) % self._epochs):
            position = self._where(row, later)
            full = len(self._positions) == self._crops
            if position >= self._end or (full and position > self._positions[-1]):
                return
            if self._asked(position) and position not in self._held:
                yield position, later

    def hold(self, position: int, item: Item) -> None:
        """Keep a sample until its position is reached, or sooner ones take all the room."""
        # A view of its picture would keep all of the picture.
        images = {name: image if image.base is None else np.array(image) for name, image in item.images.items()}
        self._held[position] = replace(item, images=images)
        insort(self._positions, position)
        if len(self._positions) > self._crops:
            del self._held[self._positions.pop()]
