"""Hot swap: the champion serves if it can; what cannot serve is refused once, and the last good version stays."""

import asyncio
import gc
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import psutil
import pytest
import safetensors.numpy

from features.online.async_reader import RequestRows
from features.online.item_table import NOWHERE
from features.spec import Feature, FeatureSpec
from stream.tasks import TaskSpec
from student.serve.swap import REFUSED, SWAPS, VERSION, ChampionSwap
from student.versions.manifest import Draft, Manifest, StudentConfig
from student.versions.registry import Registry
from student.versions.served_tensors import tensor_shapes
from student.versions.version_folder import MANIFEST_FILE, MODEL_FILE
from tests.specs import spec_of
from tests.student.posteriors import draft_of, manifest_of, transparent, unguarded
from tests.student.versions.promoted import promote

SPEC = spec_of(Feature(name="context:hour", source="context", role="dense", dtype="int", default=12))
STUDENT = StudentConfig(trunk=[4], tower=2, embedding_dim=8, table_rows=20_000)
DRAFT = draft_of(SPEC, [TaskSpec(name="like", kind="binary", window_seconds=60)], STUDENT)


def tensors(draft: Draft = DRAFT) -> dict[str, np.ndarray]:
    manifest = manifest_of(draft)
    rng = np.random.default_rng(0)
    drawn = {name: rng.normal(size=shape).astype(np.float32) for name, shape in tensor_shapes(manifest).items()}
    student = drawn | transparent(manifest) | {"normalizer.std": np.ones_like(drawn["normalizer.std"])}
    return unguarded(manifest, student)


def publish(registry: Registry, draft: Draft = DRAFT) -> str:
    return registry.publish(draft, tensors(draft), {}, {}).version


def rewrite(registry: Registry, version: str, change: dict[str, np.ndarray]) -> None:
    """Replace tensors of a published version, with a digest that holds: a writer other than ours."""
    folder = registry.folder / version
    data = safetensors.numpy.save(tensors() | change)
    (folder / MODEL_FILE).write_bytes(data)
    manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    digests = manifest.sha256 | {MODEL_FILE: hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST_FILE).write_text(manifest.model_copy(update={"sha256": digests}).model_dump_json())


def bad_sha(registry: Registry, version: str) -> str:
    path = registry.folder / version / MODEL_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return "sha256 must be"


def not_a_number(registry: Registry, version: str) -> str:
    rewrite(registry, version, {"head.like.bias": np.array([np.nan], np.float32)})
    return "head.like.bias must be finite"


def overflowing(registry: Registry, version: str) -> str:
    weights = {
        "trunk.0.bias": np.full(4, 3e38, np.float32),
        "tower.like.weight": np.full((2, 4), 3e38, np.float32),
        "head.like.weight": np.array([[1, -1]], np.float32),
    }
    rewrite(registry, version, weights)
    return "like of default features must be finite"


def nonsense_champion(registry: Registry, version: str) -> str:
    (registry.folder / "champion").write_text("../../etc")
    return "must hold a version such as v000001"


DAMAGES = [bad_sha, not_a_number, overflowing, nonsense_champion]
"""Others: tests/student/versions."""


@asynccontextmanager
async def swapping(registry: Registry) -> AsyncIterator[ChampionSwap]:
    swap = ChampionSwap(registry, "redis://127.0.0.1:1/0")
    try:
        yield swap
    finally:
        await swap.close()


def run(registry: Registry, body: Callable[[ChampionSwap], Awaitable[None]]) -> None:
    async def main() -> None:
        async with swapping(registry) as swap:
            await body(swap)

    asyncio.run(main())


def serving(swap: ChampionSwap) -> str | None:
    return swap.current.version if swap.current else None


def rows_of(hour: int) -> RequestRows:
    nowhere_B = np.full(1, NOWHERE)
    return RequestRows(SPEC.encode({"context:hour": [hour]}), nowhere_B, nowhere_B, degraded=False)


def test_a_version_is_warmed_up_on_the_last_requests_and_refused_where_it_overflows(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(swap: ChampionSwap) -> None:
        publish(registry)
        await swap.refresh()
        assert swap.current
        overflowing = {
            "trunk.0.weight": np.full((4, 1), -2e38, np.float32),  # of hours below the mean; the default is above
            "trunk.0.bias": np.zeros(4, np.float32),
            "tower.like.weight": np.ones((2, 4), np.float32),
            "head.like.weight": np.array([[1, -1]], np.float32),
        }
        second = publish(registry)
        rewrite(registry, second, overflowing)
        swap.current.recent.append(rows_of(hour=-8))
        await swap.refresh()
        assert serving(swap) == "v000001"
        assert "like of the last requests must be finite, as v000001 has it" in caplog.text
        swap.current.recent.clear()
        rewrite(registry, publish(registry), overflowing)
        await swap.refresh()
        assert serving(swap) == "v000003"
        swap.current.recent.append(rows_of(hour=-8))
        rewrite(registry, publish(registry), overflowing)
        await swap.refresh()
        assert serving(swap) == "v000004"  # the former one overflows there too

    run(registry, body)


def test_the_champion_is_followed_forward_and_back(registry: Registry) -> None:
    async def body(swap: ChampionSwap) -> None:
        await swap.refresh()
        assert serving(swap) is None
        first = publish(registry)
        await swap.refresh()
        assert serving(swap) == first
        second = publish(registry)
        await swap.refresh()
        assert (serving(swap), VERSION._value.get()) == (second, 2)
        promote(registry, first)
        await swap.refresh()
        assert (serving(swap), VERSION._value.get()) == (first, 1)

    run(registry, body)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_version_that_cannot_serve_is_refused_once_and_the_last_good_one_stays(
    registry: Registry, caplog: pytest.LogCaptureFixture, damage: Callable[[Registry, str], str]
) -> None:
    async def body(swap: ChampionSwap) -> None:
        good = publish(registry)
        await swap.refresh()
        bad = publish(registry)
        reason = damage(registry, bad)
        refused, swaps = REFUSED._value.get(), SWAPS._value.get()
        for _ in range(3):
            await swap.refresh()
            swap._retry_at = 0.0
        assert serving(swap) == good
        assert (REFUSED._value.get(), SWAPS._value.get()) == (refused + 1, swaps)
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(lines) == 1
        assert reason in lines[0]
        assert f"{good} stays" in lines[0]
        better = publish(registry)
        await swap.refresh()
        assert serving(swap) == better

    run(registry, body)


def test_a_version_that_is_completed_later_serves_then(registry: Registry) -> None:
    async def body(swap: ChampionSwap) -> None:
        version = publish(registry)
        path = registry.folder / version / MODEL_FILE
        whole = path.read_bytes()
        path.write_bytes(whole[:1000])
        await swap.refresh()
        path.write_bytes(whole)
        await swap.refresh()
        assert serving(swap) is None, "not again before the retry time"
        swap._retry_at = 0.0
        await swap.refresh()
        assert serving(swap) == version

    run(registry, body)


def test_the_reader_and_contract_stay_while_the_spec_does(registry: Registry) -> None:
    async def body(swap: ChampionSwap) -> None:
        publish(registry)
        await swap.refresh()
        before = swap.current
        publish(registry)
        await swap.refresh()
        assert before
        assert swap.current
        assert swap.current.reader is before.reader
        assert swap.current.contract is before.contract
        other = FeatureSpec(**SPEC.model_dump() | {"feast_project": "other"})
        publish(registry, DRAFT.model_copy(update={"spec": other}))
        await swap.refresh()
        assert swap.current.reader is not before.reader
        assert swap.current.spec == other

    run(registry, body)


def test_hundreds_of_swaps_leave_no_memory_behind(registry: Registry) -> None:
    async def swap_times(swap: ChampionSwap, count: int) -> None:
        for i in range(count):
            promote(registry, f"v{i % 2 + 1:06d}")
            await swap.refresh()
            assert serving(swap) == f"v{i % 2 + 1:06d}"

    async def body(swap: ChampionSwap) -> None:
        publish(registry)
        publish(registry)
        await swap_times(swap, 50)
        gc.collect()
        objects, rss = len(gc.get_objects()), psutil.Process().memory_info().rss
        await swap_times(swap, 300)
        gc.collect()
        # One version's table has 640 kB: 300 kept ones would be 190 MB.
        assert psutil.Process().memory_info().rss - rss < 16_000_000
        # Fewer than one object a swap: what other tests of this process leave and take away meanwhile is in the count.
        assert len(gc.get_objects()) - objects < 300

    run(registry, body)
