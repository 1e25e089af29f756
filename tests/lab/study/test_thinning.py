"""A log with a share of its users, and running aggregates that know of no one else."""

from dataclasses import dataclass

import numpy as np

from features.aggregates import Aggregates
from lab.study.log.log_in_memory import recounted
from lab.study.log.study_log import KeptUsers, StudyLog, known_after
from stream.events import Example
from tests.features.examples import count_example
from tests.lab.study.conftest import Pair


def _users(log: StudyLog) -> set[int | str]:
    return {example.user_id for example in log.examples}


def test_a_share_of_the_users_is_kept_with_all_of_their_examples(pair: Pair) -> None:
    kept = KeptUsers((example.user_id for example in pair.log.examples), 0.3, seed=1).thinned(pair.log)
    users = _users(kept)
    assert len(users) == round(0.3 * len(_users(pair.log)))
    assert kept.records == [record for record in pair.log.records if record.example.user_id in users]


def test_another_seed_keeps_others_and_a_larger_share_keeps_the_smaller_one(pair: Pair) -> None:
    def kept(share: float, seed: int) -> set[int | str]:
        return _users(KeptUsers(sorted(map(str, _users(pair.log))), share, seed).thinned(pair.log))

    assert kept(0.1, 1) < kept(0.3, 1)
    assert kept(0.1, 1) == kept(0.1, 1) != kept(0.1, 2)


def test_one_user_is_kept_at_least_and_a_user_without_examples_in_the_same_share(pair: Pair) -> None:
    few = KeptUsers(["a", "b"], 0.01, seed=1)
    assert len(few.of(["a", "b"])) == 1
    half = KeptUsers(range(1_000), 0.5, seed=1)
    assert 0.4 < len(half.of(range(1_000, 2_000))) / 1_000 < 0.6


@dataclass
class Counted:
    """What the aggregates of the fixtures are after some examples."""

    pair: Pair

    def features(self, learnt: list[Example], example: Example) -> dict[str, object]:
        """By the name of each pushed feature its value; None for an entity that no example has."""
        aggregates = Aggregates(self.pair.project.features.aggregates)
        for one in learnt:
            count_example(aggregates, one.user_id, one.item_id, one.labels, one.event_time_ms)
        found: dict[str, object] = {}
        for config in self.pair.project.features.aggregates:
            view = self.pair.day_zero.sources.pushed[config.push_source]
            key = example.user_id if config.entity == "user" else example.item_id
            columns = aggregates.rows(config.push_source, config.entity, [key])
            has = aggregates.has(config.entity, key)
            found |= {f"{view}:{name}": float(np.float32(v[0])) if has else None for name, v in columns.items()}
        return found


def test_running_aggregates_know_the_kept_examples_alone_whose_labels_were_known(pair: Pair) -> None:
    thinned = KeptUsers((example.user_id for example in pair.log.examples), 0.3, seed=1).thinned(pair.log).first(300)
    known_N = known_after(600, thinned.event_times_ms)
    configs, pushed = pair.project.features.aggregates, pair.day_zero.sources.pushed
    log = recounted(thinned, configs, pushed, known_N)
    names = [feature.name for feature in pair.spec.features]
    for n in (0, 50, 299):
        example, before = log.examples[n], [thinned.examples[m] for m in range(n) if known_N[m] <= n]
        ours, logged = (dict(zip(names, of.features, strict=True)) for of in (example, thinned.examples[n]))
        expected = Counted(pair).features(before, example)
        assert {name: ours[name] for name in expected} == expected
        assert {name: ours[name] for name in names if name not in expected} == {
            name: logged[name] for name in names if name not in expected
        }
    assert len(before) > 100
    assert log.examples != thinned.examples


def test_a_log_counted_anew_without_thinning_is_the_streams_but_for_the_last_to_close(pair: Pair) -> None:
    """The stream reads an impression's features before the examples that close at that very message."""
    known_N = known_after(10, pair.log.event_times_ms)
    configs, pushed = pair.project.features.aggregates, pair.day_zero.sources.pushed
    log = recounted(pair.log, configs, pushed, known_N)
    pairs = zip(log.examples, pair.log.examples, strict=True)
    assert np.mean([ours.features == logged.features for ours, logged in pairs]) > 0.5
    counts = [i for i, feature in enumerate(pair.spec.features) if feature.name in _counts(pair)]
    for ours, logged in zip(log.examples, pair.log.examples, strict=True):
        for i in counts:
            assert float(ours.features[i] or 0) - float(logged.features[i] or 0) >= 0  # type: ignore[arg-type]


def _counts(pair: Pair) -> set[str]:
    return {
        f"{pair.day_zero.sources.pushed[config.push_source]}:{column}"
        for config in pair.project.features.aggregates
        for column, text in config.columns.items()
        if text == "count"
    }
