"""The stream process: validates events, joins impressions with feedback, and writes each example exactly once."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kafka import TopicPartition
from kafka.errors import (
    AuthorizationError,
    FencedInstanceIdError,
    InvalidConfigurationError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedVersionError,
)

from features.aggregates import Aggregates
from features.online.reader import TimedFeatureReader
from features.push.push_order import StalePushError
from features.spec import FeatureSpec
from runtime.absence import Absence, StoppedError, wait_for
from runtime.errors import GraftError, ServiceUnavailableError
from runtime.health import HEALTH
from runtime.telemetry import StopSignal
from stream.config import StreamConfig, Topics
from stream.join.aggregation import AggregatePusher
from stream.join.sampling import SamplingConfig
from stream.kafka.groups import replaced_error
from stream.kafka.topics import ensure_topics
from stream.process.pause import Pause
from stream.process.state_log import FLOOR_BYTES, StateId, state_id
from stream.process.unusable import MostlyUnusableError
from stream.process.worker import StreamJob, StreamWorker
from stream.tasks import TaskSpec

_HOPELESS = (
    AuthorizationError,
    InvalidConfigurationError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnsupportedVersionError,
)
_COMMAND = "graft stream run"
_LOOP = "joining"
_STEADY_SECONDS = 2.0  # above the usual commit_seconds: what fails at every commit is one absence, not many


def run_stream(  # noqa: PLR0913, PLR0917 - the process's parts, named by the command line
    kafka_servers: str,
    config: StreamConfig,
    topics: Topics,
    tasks: Sequence[TaskSpec],
    spec: FeatureSpec,
    reader: TimedFeatureReader,
    aggregates_factory: Callable[[], Aggregates],
    pusher: AggregatePusher,
    instance: str,
    stop: StopSignal,
    *,
    claim_aggregates: Callable[[StateId], None] = lambda _: None,
    sampling: SamplingConfig | None = None,
    log_floor_bytes: int = FLOOR_BYTES,
) -> None:
    """Join until a stop is asked for; what was joined is then committed.

    With Kafka or Redis away, or while nearly no message of an input can be used, it waits and goes on by itself.
    GraftError when another process of this `instance` has taken over; UndecodableError when messages cannot be decoded;
    DataLossError when input messages or saved state are gone; ConfigurationError when the topics do not fit.
    `claim_aggregates` makes the aggregates in Redis this state's own, before any is read or pushed.
    `docs/decisions/001-exactly-once.md` says why nothing is lost or doubled.
    """
    job = StreamJob(
        kafka_servers,
        config,
        topics,
        tasks,
        spec,
        reader,
        aggregates_factory,
        pusher,
        instance,
        sampling or SamplingConfig(),
        log_floor_bytes,
    )
    kafka = Absence("kafka", "starting again from what is committed, nothing is lost")
    redis = Absence("redis", "the stream begins when it is back")
    excused: dict[TopicPartition, int] = {}
    HEALTH.begin(_LOOP)
    while not stop.is_set():
        try:
            ensure_topics(kafka_servers, config, topics)
            state = state_id(kafka_servers, topics.join_state)
            wait_for(partial(claim_aggregates, state), redis, stop)
            _work(job, stop, kafka, excused)
        except MostlyUnusableError as error:
            excused |= Pause(job, error).wait(stop)
        except (KafkaError, ServiceUnavailableError, StalePushError) as error:
            stop.wait(kafka.failed(error))
        except StoppedError:
            return


def _work(job: StreamJob, stop: StopSignal, kafka: Absence, excused: Mapping[TopicPartition, int]) -> None:
    worker = StreamWorker(job, stop, excused)
    steady_at = time.monotonic() + _STEADY_SECONDS
    try:
        while not stop.is_set():
            if worker.step():
                HEALTH.round_ended(_LOOP)
            if time.monotonic() >= steady_at:
                kafka.ended()
        worker.commit()
    except FencedInstanceIdError as error:
        raise replaced_error(_COMMAND, job.instance) from error
    except _HOPELESS as error:
        raise GraftError(f"Kafka at {job.kafka_servers} refuses the stream's work: {error}") from error
    except KafkaError as error:
        if worker.is_replaced():
            raise replaced_error(_COMMAND, job.instance) from error
        raise
    finally:
        worker.close()
