"""The parts of a project's teacher that commands share: its generation, its caches, and what scores rows."""

import socket
import time
from contextlib import closing, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from features.spec import load_spec
from graft.process import Process
from runtime.errors import GraftError
from runtime.outage import Outage, wait_for
from runtime.telemetry import StopSignal
from teacher_cache.backfill.histories import Checkpoint
from teacher_cache.cache.cache import LogitCache
from teacher_cache.cache.generation import Generation, generation_of, stamps
from teacher_cache.cache.generation_registry import GenerationRegistry, Record
from teacher_cache.domain.context_key import ContextKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.spec import FeatureSpec
    from teacher_cache.profiles import ProfileScorer


class ProjectTeacher:
    """The teacher of a project as its folder is now. Needs an applied feature repository.

    Without `scoring` it does not load the teacher: so the learner knows which logits are its own.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.project = process.project
        self.config = process.project.needed_teacher
        self.access = process.teacher_access

    @cached_property
    def spec(self) -> "FeatureSpec":
        """The feature spec that was applied."""
        return load_spec(self.project.repo)

    @cached_property
    def generation(self) -> Generation:
        """What the logits mean; ConfigurationError when a file of it cannot be digested.

        ServiceUnavailableError when the teacher's server does not answer.
        """
        self._stamps  # noqa: B018 - taken before the files are read
        return generation_of(self.project.name, self.config, self.project.folder, self.spec, self.access)

    def awaited_generation(self, stop: StopSignal) -> str:
        """The generation's digest, when the teacher's server answers; StoppedError when `stop` is set before."""
        return wait_for(lambda: self.generation, Outage("teacher", "waiting for it"), stop).digest

    @cached_property
    def scoring(self) -> "Scoring":
        """What scores rows; GraftError when a file is replaced between its digest and its loading.

        ServiceUnavailableError when the teacher's server does not answer.
        """
        before = self._stamps
        scoring = Scoring(self)  # first: its errors say more than those of a digest
        self.generation  # noqa: B018 - digested
        if stamps(self.config, self.project.folder) != before:
            raise GraftError(f"{self.project.folder}: the teacher's files changed while they were read; start again")
        return scoring

    @cached_property
    def _stamps(self) -> list[tuple[int, ...]]:
        return stamps(self.config, self.project.folder)

    def open_registry(self) -> GenerationRegistry:
        """The generations of this project."""
        return GenerationRegistry(self.process.redis_url, self.project.name)

    def begin(self) -> None:
        """Note in Redis that this generation is used; ConfigurationError when its name is another one's.

        ServiceUnavailableError without Redis.
        """
        where = f"{socket.gethostname()}:{self.config.place(self.project.folder)}"
        now_ms = time.time_ns() // 1_000_000
        with closing(self.open_registry()) as registry:
            registry.begin(
                Record(generation=self.generation, name=self.config.version, begun_ms=now_ms, begun_at=where)
            )

    def open_cache(self, writer: str = "run") -> LogitCache:
        """The logits: batch scorer, backfill and learner share them."""
        tasks = [task.name for task in self.config.tasks]
        context = ContextKey.seen_by(self.config, self.spec)
        return LogitCache(self.process.redis_url, self.generation.key, tasks, self.config.ttl_seconds, context, writer)

    def open_checkpoint(self, name: str) -> Checkpoint:
        """How far the backfill of that name is."""
        return Checkpoint(self.process.redis_url, self.generation.key, name, self.config.ttl_seconds)

    @contextmanager
    def open_profiles(self) -> "Iterator[ProfileScorer | None]":
        """The profiles of this generation; None, and without Feast's import, where there are none."""
        project, redis_url, spec = self.project, self.process.redis_url, self.spec
        configs = project.features.profiles
        if not configs:
            yield None
            return
        from features.online.reader import OnlineReader
        from features.push.pusher import LoggedPusher
        from features.repo.store import batch_tables, view_sources
        from teacher_cache.profiles import ProfileQueue, Profiler, ProfileScorer, ProfileTable

        pushed = view_sources(project.repo, redis_url).pushed
        tables = [
            ProfileTable(config, ProfileQueue(redis_url, self.generation.key, spec, config)) for config in configs
        ]
        scoring = self.scoring
        profiler = Profiler(scoring.model, scoring.domain_map, spec, OnlineReader(spec, redis_url), pushed.values())
        with closing(LoggedPusher(project.repo, redis_url, configs)) as pusher:
            yield ProfileScorer(tables, profiler, pusher, batch_tables(project.repo, redis_url, spec))


class Scoring:
    """The teacher's model behind its domain map. Loads what its kind needs, such as onnxruntime."""

    def __init__(self, teacher: ProjectTeacher) -> None:
        from teacher_cache.domain.domain_map import DomainMap
        from teacher_cache.domain.request_scorer import RequestScorer
        from teacher_cache.kinds.load import load_teacher

        config, folder, spec = teacher.config, teacher.project.folder, teacher.spec
        self.model = load_teacher(config, folder, teacher.access)
        self.domain_map = DomainMap(config, folder, self.model, spec)
        self.scorer: RequestScorer = RequestScorer(self.model, self.domain_map, spec)
