"""Batches of windows cut from the episodes of a store, with exact restart."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from fosp.data.store import Store
from fosp.types import Batch, UserError


class BatchSource(Protocol):
    """What learning needs of a sampler. The state is JSON-able and says exactly which batch comes next."""

    def sample(self) -> Batch: ...

    def refresh(self, episodes: int | None = None) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Piece(NamedTuple):
    """Rows begin..stop of a window of the batch are those of ``episode`` from ``start`` on."""

    window: int
    begin: int
    stop: int
    episode: int
    start: int


class Sampler:
    """Windows of ``length`` rows, uniform over all start rows from which a window fits into its episode.

    An episode shorter than ``length`` counts as one start row; its window goes on with row 0 of another drawn episode,
    so a window may hold several episodes, each beginning where ``is_first`` is set. Row 0 of a window has the
    ``is_first`` of the log: a learner must treat it as a start in any case.

    Episodes appended after construction are seen after ``refresh()``. One sample costs the same however many there are
    (a binary search over the cumulative number of start rows), and of files larger than memory only its rows are read.
    """

    def __init__(self, store: Store, batch_size: int, length: int, seed: int, own: slice | None = None) -> None:
        """``own``: the windows of each batch that are read and given; all ``batch_size`` are drawn. None is all."""
        if batch_size < 1 or length < 2:
            raise UserError(f"batch size {batch_size} and length {length} must be at least 1 and 2")
        self.store = store
        self.batch_size = batch_size
        self.length = length
        self.own = slice(0, batch_size) if own is None else own
        self._rng = np.random.default_rng(seed)
        self._see(len(store))

    def refresh(self, episodes: int | None = None) -> None:
        """Sees the first ``episodes`` of the store, or all that it has now."""
        self._see(len(self.store) if episodes is None else episodes)

    def _see(self, episodes: int) -> None:
        self._rows = np.array([row["rows"] for row in self.store.manifest[:episodes]], np.int64)  # (episodes,)
        self._ends = np.cumsum(np.maximum(1, self._rows - self.length + 1))  # (episodes,) cumulative start rows

    @property
    def episodes(self) -> int:
        """Number of episodes that are drawn from."""
        return len(self._rows)

    def sample(self) -> Batch:
        """The next batch: contiguous arrays (B, T, ...). Raises UserError where there is no episode."""
        batch = self.empty(self.own.stop - self.own.start)
        self._read(batch, self.draw())
        return batch

    def draw(self) -> list[Piece]:
        """What the windows of the next batch consist of; the sampler then stands where ``sample`` would leave it."""
        pieces = [piece for piece in self._draw(0, self.batch_size) if self.own.start <= piece.window < self.own.stop]
        return [piece._replace(window=piece.window - self.own.start) for piece in pieces]

    def empty(self, size: int) -> Batch:
        """A batch of ``size`` windows whose content is not set yet."""
        shape, schema = (size, self.length), self.store.schema
        return Batch(
            images={name: np.empty((*shape, *image), np.uint8) for name, image in schema.cameras.items()},
            action=np.empty((*shape, schema.action_size), np.float32),
            reward=np.empty(shape, np.float32),
            cost=np.full(shape, np.nan, np.float32),  # stays NaN where the store does not know its cost
            is_first=np.empty(shape, bool),
            is_last=np.empty(shape, bool),
            is_terminal=np.empty(shape, bool),
        )

    def fill(self, batch: Batch, low: int, high: int) -> None:
        """Draws windows low..high of ``batch``."""
        self._read(batch, list(self._draw(low, high)))

    def _read(self, batch: Batch, pieces: list[Piece]) -> None:
        for piece in pieces:
            self.store.expect(piece.episode, piece.start, piece.start + piece.stop - piece.begin)
        for piece in pieces:
            self._copy(batch, piece)

    def _draw(self, low: int, high: int) -> Iterator[Piece]:
        """What windows low..high consist of, in order."""
        if self.episodes == 0:
            raise UserError(f"dataset {self.store.path} holds no episodes; collect some first")
        draws = self._rng.integers(self._ends[-1], size=high - low)
        episodes = np.searchsorted(self._ends, draws, "right")
        starts = draws - np.where(episodes > 0, self._ends[episodes - 1], 0)
        for window, episode, start in zip(range(low, high), episodes.tolist(), starts.tolist(), strict=True):
            piece = self._piece(window, 0, episode, start)
            yield piece
            while piece.stop < self.length:
                episode = int(np.searchsorted(self._ends, self._rng.integers(self._ends[-1]), "right"))
                piece = self._piece(window, piece.stop, episode, 0)
                yield piece

    def _piece(self, window: int, begin: int, episode: int, start: int) -> Piece:
        """What ``episode`` has from row ``start`` on, as far as there is room in the window."""
        return Piece(window, begin, min(self.length, begin + int(self._rows[episode]) - start), episode, start)

    def _copy(self, batch: Batch, piece: Piece) -> None:
        into = piece.window, slice(piece.begin, piece.stop)
        flags = np.empty((piece.stop - piece.begin, 3), bool)
        arrays = {name: images[into] for name, images in batch.images.items()}
        arrays |= {"action": batch.action[into], "reward": batch.reward[into], "flags": flags}
        if self.store.has_cost:
            arrays["cost"] = batch.cost[into]
        self.store.read_into(piece.episode, piece.start, arrays)
        for column, flag in enumerate((batch.is_first, batch.is_last, batch.is_terminal)):
            flag[into] = flags[:, column]

    def state_dict(self) -> dict[str, Any]:
        """JSON values: the generator, and how many episodes are drawn from."""
        return {"episodes": self.episodes, "generator": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on exactly where ``state_dict`` was taken, even if the store has grown since (until ``refresh``)."""
        if state["episodes"] > len(self.store):
            raise UserError(
                f"dataset {self.store.path} has {len(self.store)} episodes, but the run that is resumed had seen "
                f"{state['episodes']}; give the dataset that the run was started with"
            )
        self._see(state["episodes"])
        self._rng.bit_generator.state = state["generator"]


class MixedSampler:
    """Each batch holds a fixed share of windows from ``a`` (the first rows), the rest from ``b``.

    For instance half from the offline log and half from new episodes. As long as one of the two has no episode, all
    windows come from the other. The batch size is that of ``a``.
    """

    def __init__(self, a: Sampler, b: Sampler, fraction: float) -> None:
        if not 0 <= fraction <= 1:
            raise UserError(f"fraction {fraction} of a mixed batch must lie between 0 and 1")
        if a.length != b.length:
            raise ValueError(f"windows of {a.length} and {b.length} rows cannot be mixed")
        b.store.require(a.store.schema, cost=a.store.has_cost)
        self.a, self.b = a, b
        self.fraction = fraction

    def sample(self) -> Batch:
        """The next batch, windows from ``a`` before windows from ``b``."""
        size = self.a.batch_size
        from_a = round(self.fraction * size) if self.a.episodes and self.b.episodes else size * bool(self.a.episodes)
        batch = self.a.empty(size)
        if from_a:
            self.a.fill(batch, 0, from_a)
        if from_a < size:
            self.b.fill(batch, from_a, size)
        return batch

    def refresh(self, episodes: int | None = None) -> None:
        """All of ``a``, and of ``b``, which grows, the first ``episodes`` or all."""
        self.a.refresh()
        self.b.refresh(episodes)

    def state_dict(self) -> dict[str, Any]:
        return {"a": self.a.state_dict(), "b": self.b.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.a.load_state_dict(state["a"])
        self.b.load_state_dict(state["b"])


class Prefetcher:
    """Prepares the next batches of a sampler in one background thread.

    Which batches come is the same as without it: ``state_dict`` speaks of the batches that were taken, not of those
    that lie ready, and ``refresh`` throws the latter away. From construction to ``close`` the sampler belongs to it.
    """

    def __init__(
        self, sampler: BatchSource, ahead: int = 1, prepare: Callable[[Batch], Batch] = lambda batch: batch
    ) -> None:
        """``ahead``: batches that may lie ready beside the one in preparation; ``prepare`` is done to each of them."""
        self._sampler, self._prepare = sampler, prepare
        self._state = sampler.state_dict()
        self._ahead = ahead
        self._start()

    def _start(self) -> None:
        self._stop = threading.Event()
        self._ready: queue.Queue[tuple[Batch, dict[str, Any]] | BaseException] = queue.Queue(self._ahead)
        self._thread = threading.Thread(target=self._work, args=(self._stop, self._ready), daemon=True)
        self._thread.start()

    def _work(self, stop: threading.Event, ready: queue.Queue[Any]) -> None:
        while not stop.is_set():
            try:
                item: Any = (self._prepare(self._sampler.sample()), self._sampler.state_dict())
            except BaseException as error:  # handed to the thread that asks for the batch
                item = error
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    def sample(self) -> Batch:
        """The next batch. Raises what the sampler raised while it prepared it."""
        if self._stop.is_set():
            raise ValueError("the prefetcher is closed")
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._rewind()  # so that asking again raises again, and does not wait for ever
            raise item
        batch, self._state = item
        return batch

    def refresh(self, episodes: int | None = None) -> None:
        """The next batch is drawn from the first ``episodes``, or from all that there are now."""
        self.close()
        self._sampler.load_state_dict(self._state)
        self._sampler.refresh(episodes)
        self._state = self._sampler.state_dict()
        self._start()

    def _rewind(self) -> None:
        self.close()
        self._sampler.load_state_dict(self._state)
        self._start()

    def state_dict(self) -> dict[str, Any]:
        """State of the sampler just after the last batch that was taken."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        self._sampler.load_state_dict(state)
        self._state = self._sampler.state_dict()
        self._start()

    def close(self) -> None:
        """Ends the thread; the sampler may have drawn batches that nobody took."""
        self._stop.set()
        while not self._ready.empty():
            self._ready.get_nowait()
        self._thread.join()
