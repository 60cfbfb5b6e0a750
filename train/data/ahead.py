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

from clearfuse.train.data.batch import Item

VISITS = 4
"""K of ``period`` at most: four decodings of five are saved, and the first epoch is not much longer."""


def room(memory: int, pictures: int, crop: int, count: int) -> int:
    """Crops that ``memory`` bytes have room for; 0 where pictures are better kept there.

    pictures: bytes of all of them; count: crops of an epoch, of ``crop`` bytes each. Memory of M keeps a share M / S
    of pictures of S bytes in all from being decoded. Held for K / 2 epochs in the mean, crops of K later visits take
    K / 2 of an epoch's C bytes, and one visit of 1 + K is a decoding: fewer where M < S − C / 2. As K is a whole number
    and the memory is not always full, what is found is fewer up to 0.85 of that.
    """
    better = min(0.85 * (pictures - crop * count / 2), pictures * VISITS / (1 + VISITS))
    return memory // crop if memory < better else 0


def period(crops: int, count: int) -> int:
    """Visits from one decoding of a sample to its next, 1 + K: K = 2 crops / count, see ``room``, rounded up."""
    return 1 + min(-(-2 * crops // count), VISITS)


class Ahead:
    """Samples of later positions, those that come soonest of all that could be held.

    where: row and epoch -> position; asked: whether this process will be asked for a position; end: where the run's
    positions end; crops: samples held at most; count: rows, each of which comes ``repeats`` times in a row; processes:
    that share the positions. Rows are decoded in turns. Were all decoded in one epoch, the crops of the next ones would
    have to be held at once.
    """

    def __init__(
        self,
        where: Callable[[int, int], int],
        asked: Callable[[int], bool],
        *,
        end: int,
        crops: int,
        count: int,
        repeats: int = 1,
        processes: int = 1,
    ) -> None:
        self._where, self._asked = where, asked
        self._end, self._crops, self._repeats = end, crops, repeats
        # A process sees a row so much more seldom.
        self._epochs = period(crops, count * repeats) * repeats * processes
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
        for later in range(epoch + 1, self._turn(row, epoch)):
            position = self._where(row, later)
            full = len(self._positions) == self._crops
            if position >= self._end or (full and position > self._positions[-1]):
                return
            if self._asked(position) and position not in self._held:
                yield position, later

    def _turn(self, row: int, epoch: int) -> int:
        """The next epoch at which a row is decoded."""
        return epoch + self._epochs - (epoch - row * self._repeats) % self._epochs

    def hold(self, position: int, item: Item) -> None:
        """Keep a sample until its position is reached, or sooner ones take all the room."""
        # A view of its picture would keep all of the picture.
        images = {name: image if image.base is None else np.array(image) for name, image in item.images.items()}
        self._held[position] = replace(item, images=images)
        insort(self._positions, position)
        if len(self._positions) > self._crops:
            del self._held[self._positions.pop()]
