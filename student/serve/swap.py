"""Hot swap: follows the registry's champion and keeps the version that answers in one reference.

A request that names another version is answered by that one; the last few of those stay loaded.

The reference is replaced in one assignment, after the new version has been read, verified, built and warmed up in a
thread. A request takes it once and is answered by that version whole.
"""

import asyncio
import gc
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from features.online.async_reader import DEFAULT_LIMITS, AsyncOnlineReader, RequestRows
from features.online.item_table import NOWHERE, TableLimits
from features.spec import FeatureSpec
from student.serve.admission import unavailable
from student.serve.requests import RequestContract
from student.versions.manifest import Manifest
from student.versions.names import Reference, number_of
from student.versions.numpy_model import NumpyStudent, Places
from student.versions.registry import Registry
from student.versions.version_folder import VersionError

SWAPS = Counter("graft_scorer_swaps_total", "Versions that took over from another one")
REFUSED = Counter("graft_scorer_refused_versions_total", "Versions that could not serve; the one before stayed")
VERSION = Gauge(
    "graft_scorer_version",
    "Number of the version that answers; 0 before the first. Of several workers: the lowest",
    multiprocess_mode="livemin",
)

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2  # a small file read in a thread: about 0.1 ms of work
_RETRY_SECONDS = 5.0  # a refused version may still be copied into place
_READ_SECONDS = 0.05  # what a ranking may wait for its features before it does without
_CLOSE_READER_SECONDS = 1.0  # above _READ_SECONDS, so that no read in flight loses its connection
_WARM_UP_ROWS = 100
_WARM_UP_REQUESTS = 4
_MOST_OTHERS = 4  # versions beside the champion that stay loaded
_NO_STAMP = -1  # no row of the reader's table has it
_MOST_AWAITING = 8  # requests that wait for versions to be loaded; of the 32 that may be under way


class ItemPlaces:
    """Where `student` has the items that the reader holds: each is searched once, until its row's stamp is another.

    Shapes: N slots of the reader's table, B rows of a request, C categorical columns, E ids of a row, X: E + C.
    """

    def __init__(self, spec: FeatureSpec, student: NumpyStudent) -> None:
        self._student = student
        self._shared_X = ~student.of_item(spec)
        # The last row is that of NOWHERE, which has no stamp.
        self._place_NX: Places = student.places(np.zeros((1, len(spec.categorical)), np.uint64))
        self._stamp_N = np.full(1, _NO_STAMP)

    def learn_all(self, category_NC: NDArray[np.uint64], stamp_N: NDArray[np.int64]) -> None:
        """Search those of a whole table, which `ItemTable.all_rows` copies: in a thread, before the version serves."""
        self._place_NX, self._stamp_N = self._student.places(category_NC), stamp_N
        self._stamp_N[NOWHERE] = _NO_STAMP

    def of(self, rows: RequestRows) -> Places:
        """The places of the rows: those of `NumpyStudent.places`."""
        category_BC, slot_B = rows.batch.categorical_BC, rows.slot_B
        if (last := slot_B.max()) >= len(self._stamp_N) - 1:
            self._grow(int(last) + 1)
        place_BX = self._place_NX.take(slot_B, axis=0)
        (unknown_B,) = (self._stamp_N.take(slot_B) != rows.stamp_B).nonzero()
        if len(unknown_B):
            place_BX[unknown_B] = self._student.places(category_BC[unknown_B])
            kept_B = unknown_B[slot_B[unknown_B] != NOWHERE]
            self._place_NX[slot_B[kept_B]], self._stamp_N[slot_B[kept_B]] = place_BX[kept_B], rows.stamp_B[kept_B]
        np.copyto(place_BX, self._student.places(category_BC[:1]), where=self._shared_X)
        return place_BX

    def _grow(self, slots: int) -> None:
        size = 1 + max(slots, 2 * len(self._stamp_N))
        place_NX, stamp_N = np.zeros((size, self._place_NX.shape[1]), np.int32), np.full(size, _NO_STAMP)
        place_NX[: len(self._stamp_N)], stamp_N[: len(self._stamp_N)] = self._place_NX, self._stamp_N
        self._place_NX, self._stamp_N = place_NX, stamp_N


@dataclass(frozen=True, slots=True)
class Serving:
    """All that answers a request: a version's student, and the contract and reader of its feature spec."""

    version: str
    """Its reference: ``v000012``, or ``v000012-control`` where its control answers."""
    manifest: Manifest
    student: NumpyStudent
    contract: RequestContract
    reader: AsyncOnlineReader
    places: ItemPlaces
    since_ms: int
    """By the wall clock, when it was loaded."""
    recent: deque[RequestRows]
    """The last requests' rows of this feature spec, on which the next version is warmed up."""

    @property
    def spec(self) -> FeatureSpec:
        """The version's features."""
        return self.manifest.spec


class _OfSpec:
    """What the loaded versions of one feature spec share."""

    def __init__(self, spec: FeatureSpec, redis_url: str, items: TableLimits) -> None:
        self.contract = RequestContract(spec)
        self.reader = AsyncOnlineReader(spec, redis_url, _READ_SECONDS, items)
        self.recent: deque[RequestRows] = deque(maxlen=_WARM_UP_REQUESTS)
        self.versions = 0
        """Those that are loaded or being loaded: the reader stays open for them."""


class ChampionSwap:
    """Holds the version that serves. `current` is None before the first one is loaded."""

    def __init__(self, registry: Registry, redis_url: str, items: TableLimits = DEFAULT_LIMITS) -> None:
        self.current: Serving | None = None
        self._items = items
        self._registry = registry
        self._redis_url = redis_url
        self._refused: tuple[str | None, str] | None = None
        """The last refused version and why, so that it is counted and logged once."""
        self._retry_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._others: OrderedDict[str, Serving] = OrderedDict()
        """Beside the champion, the longest unused first."""
        self._loading_other = asyncio.Lock()
        self._awaiting_other = 0
        """Requests that wait for it."""
        self._of_spec: dict[str, _OfSpec] = {}
        """By the spec's id."""

    async def watch(self) -> None:
        """Follow the champion until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(_POLL_SECONDS)

    async def refresh(self) -> None:
        """Swap to the champion if it is another version than `current`; if it cannot serve, keep `current`."""
        version = None
        try:
            version = await asyncio.to_thread(self._registry.champion)
            if version is None or (self.current and self.current.version == version) or self._waits(version):
                return
            self._replace(await self._loaded(Reference(version)))
        except Exception as error:  # noqa: BLE001 a version may be broken in any way, and none may end the scorer
            self._refuse(version, f"{error}" if isinstance(error, VersionError) else f"{type(error).__name__}: {error}")

    async def named(self, text: str) -> Serving:
        """The version of a name or a number, loaded where it is not yet. VersionError when there is none that serves.

        One is loaded at a time, so that many requests for many versions cannot take all memory and time, and few wait
        for it: RequestError 503 for more, so that they leave room for those that the champion answers.
        """
        reference = await asyncio.to_thread(self._registry.names.resolve, text)
        if serving := self._at_hand(reference):
            return serving
        if self._awaiting_other >= _MOST_AWAITING:
            raise unavailable(f"{_MOST_AWAITING} requests wait for versions that are not loaded, and no more may")
        self._awaiting_other += 1
        try:
            async with self._loading_other:
                return self._at_hand(reference) or await self._loaded_beside(reference)
        finally:
            self._awaiting_other -= 1

    def versions(self) -> list[str]:
        """All versions that there are, oldest first."""
        return self._registry.versions()

    def known(self) -> list[str]:
        """All names and versions that a request may have."""
        return [*self._registry.names.all(), *self.versions()]

    async def close(self) -> None:
        """Close all readers; no request may be in flight."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for of_spec in self._of_spec.values():
            await of_spec.reader.close()

    def _waits(self, version: str) -> bool:
        return self._refused is not None and self._refused[0] == version and time.monotonic() < self._retry_at

    def _at_hand(self, reference: Reference) -> Serving | None:
        """The version if it is loaded."""
        if self.current and self.current.version == str(reference):
            return self.current
        if str(reference) in self._others:
            self._others.move_to_end(str(reference))
        return self._others.get(str(reference))

    async def _loaded_beside(self, reference: Reference) -> Serving:
        serving = self._others[str(reference)] = await self._loaded(reference)
        if len(self._others) > _MOST_OTHERS:
            self._release(self._others.popitem(last=False)[1].spec)
        return serving

    async def _loaded(self, reference: Reference) -> Serving:
        manifest, student = await asyncio.to_thread(self._load, reference)
        return await self._serving(str(reference), manifest, student)

    def _load(self, reference: Reference) -> tuple[Manifest, NumpyStudent]:
        """Everything slow, in a thread: read, verify, build, warm up."""
        manifest, tensors = self._registry.load_model(reference.version)
        student = NumpyStudent(manifest, tensors, as_control=reference.is_control)
        _warm_up(manifest, student)
        return manifest, student

    async def _serving(self, version: str, manifest: Manifest, student: NumpyStudent) -> Serving:
        """`student` with what the versions of its feature spec share, which is made where there is none yet."""
        spec, now_ms = manifest.spec, time.time_ns() // 1_000_000
        loaded = [*([self.current] if self.current else []), *self._others.values()]
        former = next((serving for serving in loaded if serving.spec.spec_id == spec.spec_id), None)
        if is_new := spec.spec_id not in self._of_spec:
            self._of_spec[spec.spec_id] = _OfSpec(spec, self._redis_url, self._items)
        shared = self._of_spec[spec.spec_id]
        shared.versions += 1
        try:
            places = ItemPlaces(spec, student)
            new = Serving(version, manifest, student, shared.contract, shared.reader, places, now_ms, shared.recent)
            if is_new:
                await shared.reader.connect()  # without Redis it answers from defaults, and connects later
            elif former:
                await asyncio.to_thread(places.learn_all, *shared.reader.items.all_rows())
                await asyncio.to_thread(_warm_up_on, tuple(shared.recent), new, former)
        except BaseException:  # cancelled, or a version that cannot serve
            self._release(spec)
            raise
        return new

    def _replace(self, new: Serving) -> None:
        old, self.current, self._refused = self.current, new, None
        of_version = {"version": new.version}
        VERSION.set(number_of(Reference(new.version).version))
        if old is None:
            # What lives until the end leaves the collector's sight: its full passes stay short.
            gc.collect()
            gc.freeze()
            _log.info("version %s serves", new.version, extra=of_version)
            return
        SWAPS.inc()
        _log.info("version %s serves in place of %s", new.version, old.version, extra=of_version)
        self._release(old.spec)

    def _release(self, spec: FeatureSpec) -> None:
        """Let go of what a version shares; with the last one of the spec its reader is closed, later."""
        shared = self._of_spec[spec.spec_id]
        shared.versions -= 1
        if shared.versions:
            return
        del self._of_spec[spec.spec_id]
        task = asyncio.create_task(_close_after(shared.reader, _CLOSE_READER_SECONDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _refuse(self, version: str | None, reason: str) -> None:
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        if self._refused == (version, reason):
            return
        self._refused = (version, reason)
        REFUSED.inc()
        stays = f"{self.current.version} stays" if self.current else "none serves yet"
        _log.error("refused the champion %s; %s: %s", version or "", stays, reason, extra={"version": version})


async def _close_after(reader: AsyncOnlineReader, seconds: float) -> None:
    """Close `reader` in so many seconds, or at once when cancelled."""
    try:
        await asyncio.sleep(seconds)
    finally:
        await reader.close()


def _warm_up(manifest: Manifest, student: NumpyStudent) -> None:
    """Score rows of defaults once: the first request pays nothing, and a version that overflows on them is refused."""
    columns = {f.name: [f.default] * _WARM_UP_ROWS for f in manifest.spec.features}
    for task, score_B in student.score(manifest.spec.encode(columns)).items():
        if not np.isfinite(score_B).all():
            raise VersionError(
                f"version {student.version}: {task} of default features must be finite, got {score_B[0]}"
            )


def _warm_up_on(requests: Iterable[RequestRows], new: Serving, former: Serving) -> None:
    """Score the rows of real requests, and refuse a version that overflows where the former one does not."""
    for rows in requests:
        score_by_task = new.student.score_at(rows.batch.dense_BD, new.places.of(rows))
        for task, score_B in score_by_task.items():
            if np.isfinite(score_B).all():
                continue
            formerly = former.student.score(rows.batch).get(task)
            if formerly is not None and np.isfinite(formerly).all():
                raise VersionError(
                    f"version {new.version}: {task} of the last requests must be finite, as {former.version} has it"
                )
