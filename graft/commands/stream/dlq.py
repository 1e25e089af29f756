"""``graft dlq ls``, ``graft dlq replay`` and ``graft stream skip``: the messages that the stream could not use."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import TOPIC, age_seconds, echo_result, json_option, moment, topic_of
from graft.process import Process, begin
from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.config import Topics
    from stream.kafka.dead_letter_topics import Selection
    from stream.kafka.dead_letters import StoredLetter

_SHOWN_BYTES = 10_000


def _selection_options(command: "Callable[..., None]") -> "Callable[..., None]":
    options = (
        click.option("--topic", type=TOPIC, help="Only those of this topic."),
        click.option("--code", help="Only those with this reason, such as invalid or late."),
        click.option("--since", callback=age_seconds, metavar="AGE", help="Only those of the last 30d, 12h, ..."),
        click.option("--until", callback=age_seconds, metavar="AGE", help="Only those older than 30d, 12h, ..."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command
@click.argument(
    "place", type=(TOPIC, click.IntRange(0), click.IntRange(0)), required=False, metavar="[TOPIC PARTITION OFFSET]"
)
@_selection_options
@json_option
@click.pass_obj
def ls(
    project_folder: Path | None,
    /,
    place: tuple[str, int, int] | None,
    *,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Count the dead letters by topic and reason, with the newest of each; or print one whole.

    OFFSET is the one in the dead-letter topic, as the list has it. Dead letters that were put back are not counted.

    Example: graft dlq ls --since 1d

    Example: graft dlq ls impressions 0 17
    """
    from stream.kafka.dead_letter_topics import dead_letters

    process = begin(project_folder)
    if place is not None:
        _echo_letter(process, *place, as_json=as_json)
        return
    topics = process.project.topics
    counts: Counter[tuple[str, str]] = Counter()
    newest: dict[tuple[str, str], StoredLetter] = {}
    with dead_letters(process.settings.kafka, topics) as reader:
        for letter in reader.selected(_selection(topics, **chosen)):
            kind = letter.message.topic, letter.code
            counts[kind] += 1
            newest[kind] = max(letter, newest.get(kind, letter), key=lambda stored: stored.written_ms)
    rows = [
        {"topic": kind[0], "code": kind[1], "count": count, "newest": _described(newest[kind])}
        for kind, count in counts.most_common()
    ]
    lines = [_line(row) for row in rows] or ["no dead letters"]
    echo_result(lines, rows, as_json=as_json)


def _echo_letter(process: Process, topic: str, partition: int, offset: int, *, as_json: bool) -> None:
    from stream.kafka.dead_letter_topics import dead_letters

    topics = process.project.topics
    with dead_letters(process.settings.kafka, topics) as reader:
        letters = reader.selected(_selection(topics, topic))
        letter = next((letter for letter in letters if (letter.partition, letter.offset) == (partition, offset)), None)
    if letter is None:
        place = f"{topics.dead_letters(topic_of(topics, topic))}-{partition} offset {offset}"
        raise InvalidInputError(f"{place}: no dead letter stands there, or it was put back; 'graft dlq ls' names some")
    described = _described(letter) | {
        "key": _text(letter.message.key),
        "value": _text((letter.message.value or b"")[:_SHOWN_BYTES]),
        "headers": [[name, _text(data)] for name, data in letter.message.headers],
    }
    echo_result([f"{name}: {value}" for name, value in described.items()], described, as_json=as_json)


@click.command
@_selection_options
@click.option("--dry-run", is_flag=True, help="Count what would be put back; write nothing.")
@json_option
@click.pass_obj
def replay(project_folder: Path | None, /, *, dry_run: bool, as_json: bool, **chosen: Any) -> None:
    """Put dead letters back into their topic, each once, with their original bytes.

    Mend first what made them dead letters: a task, a feature, the stream's settings. A message that has been a dead
    letter three times stays where it is. So does one whose value was too large and of which only the digest was kept.

    Example: graft dlq replay --code invalid --since 1d
    """
    from graft.progress import progress
    from stream.kafka.dead_letter_topics import MAX_ATTEMPTS, replay_dead_letters

    process = begin(project_folder)
    topics = process.project.topics
    selection = _selection(topics, **chosen)
    with progress("replay") as advance:
        done = replay_dead_letters(
            process.settings.kafka, topics, selection, dry_run=dry_run, advance=lambda count: advance(count, None)
        )
    line = f"{'would put' if dry_run else 'put'} {done.replayed:,} messages back"
    if done.left_failed:
        line += f"; left {done.left_failed:,} that were dead letters {MAX_ATTEMPTS} times"
    if done.left_skipped:
        line += f"; left {done.left_skipped:,} that stand for what could not be decoded"
    if done.left_cut:
        line += f"; left {done.left_cut:,} of which only size and digest were kept"
    echo_result([line], done._asdict(), as_json=as_json)


@click.command
@click.argument("topic", type=TOPIC)
@click.argument("partition", type=click.IntRange(0))
@click.argument("first", type=click.IntRange(0))
@click.argument("last", type=click.IntRange(0), required=False)
@click.option("--dry-run", is_flag=True, help="Say what cannot be decoded there; write nothing.")
@json_option
@click.pass_obj
def skip(
    project: Path | None, topic: str, partition: int, first: int, last: int | None, *, dry_run: bool, as_json: bool
) -> None:
    """Let the readers of a topic go past what cannot be decoded: the offsets FIRST to LAST.

    Stream, batch scorer, learner and archive end where they cannot decode, and their last line names the offsets.
    Without LAST it is FIRST alone. A record of the skip stands in the topic's dead letters, with the code "skipped";
    start the process again after it.

    Example: graft stream skip impressions 0 12 57
    """
    from stream.kafka.decoding import Skip
    from stream.kafka.decoding import skip as record_skip

    process = begin(project)
    topics = process.project.topics
    wanted = Skip(topic_of(topics, topic), partition, first, first if last is None else last)
    found = record_skip(process.settings.kafka, topics, wanted, dry_run=dry_run)
    line = f"{found}; {'would skip' if dry_run else 'skips'} offsets {wanted.first} to {wanted.last}"
    echo_result([line], {**wanted._asdict(), "fault": found.fault}, as_json=as_json)


def _selection(
    topics: "Topics",
    topic: str | None = None,
    code: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> "Selection":
    """What `_selection_options` name; ages in seconds."""
    from stream.kafka.dead_letter_topics import Selection

    now_ms = time.time_ns() // 1_000_000
    since_ms, until_ms = (None if age is None else now_ms - age * 1_000 for age in (since, until))
    return Selection(None if topic is None else topic_of(topics, topic), code, since_ms, until_ms)


def _described(letter: "StoredLetter") -> dict[str, Any]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "written_at": moment(letter.written_ms),
        "code": letter.code,
        "stage": letter.stage,
        "attempt": letter.attempt,
        "reason": letter.text,
        "from": f"{letter.message.topic}-{letter.message.partition} offset {letter.message.offset}",
    }


def _line(row: dict[str, Any]) -> str:
    newest = row["newest"]
    place = f"partition {newest['partition']} offset {newest['offset']}"
    return (
        f"{row['topic']}  {row['code']}  {row['count']:,}  newest {newest['written_at']}, {place}: {newest['reason']}"
    )


def _text(data: bytes | None) -> str | None:
    """Bytes as text; bytes that are not UTF-8 as hexadecimal digits."""
    return None if data is None else data.decode("utf-8", "backslashreplace")
