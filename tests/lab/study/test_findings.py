"""What results say, on results that are made up."""

import pytest

from lab.study.findings.findings import Findings, interval, paired
from lab.study.findings.headline import headline
from lab.study.grid import PLAIN_VARIANT, Grid, TeacherChange, Variant
from lab.study.learners.cell import Result
from lab.study.report import _without_bootstrap, tables
from stream.tasks import TaskSpec

_TASKS = [TaskSpec(name="click", kind="binary", window_seconds=1)]
_GRID = Grid(
    events=100,
    seeds=3,
    baseline="base",
    windows=[0, 100],
    variants=[
        Variant(name="base"),
        Variant(name="permuted", teacher=TeacherChange(permuted=True)),
        Variant(name="heavy", question="Weight", says="weighs more", heads={"weight": 4}),
    ],
)


def _result(variant: str, seed: int, student: float, control: float, steps: int = 25) -> Result:
    scores = {"click": {"student": student, "control": control, "teacher": 0.625}}
    slices = {"all": scores, "0-100": scores}
    return Result(variant=variant, seed=seed, examples=100, steps=steps, bootstrap_steps=40, scores=slices)


def _findings(*results: Result) -> Findings:
    return Findings(_GRID, _TASKS, results, {})


def test_without_a_teacher_that_is_why_there_was_no_bootstrap() -> None:
    grid = _GRID.model_copy(update={"variants": [Variant(name="base", bootstrap=True)]})
    results = [_result("base", 1, 0.5, 0.5).model_copy(update={"bootstrap_steps": 0})]
    (told,) = _without_bootstrap(Findings(grid, _TASKS, results, {}, has_teacher=False))
    assert told == "The student learnt without a bootstrap: graft.toml has no [teacher]."
    (told,) = _without_bootstrap(Findings(grid, _TASKS, results, {}))
    assert "the teacher scores fewer than 100 rows" in told


def test_a_gain_is_of_equal_seeds_whatever_their_order() -> None:
    """Seed by seed the permuted student is .25 below; seed 3, which it has not run, counts for nothing."""
    base = [_result("base", seed, 0.5 + seed / 8, 0.5) for seed in (3, 1, 2)]
    permuted = [_result("permuted", seed, 0.25 + seed / 8, 0.5) for seed in (2, 1)]
    gain = _findings(*base, *permuted).gain("base", "all", "click", ("permuted", "student"))
    assert gain is not None
    assert (gain.mean, gain.low, gain.high, gain.seeds) == (0.25, 0.25, 0.25, 2)


def test_the_headline_has_as_many_seeds_as_all_that_it_compares() -> None:
    results = [*(_result("base", seed, 0.75, 0.5) for seed in (1, 2, 3)), _result("permuted", 1, 0.5, 0.5)]
    assert headline(_findings(*results), "made-up", [])["seeds"] == 1


@pytest.mark.parametrize("steps", [25, 24])
def test_steps_are_equal_when_every_variant_took_the_same_on_every_seed(steps: int) -> None:
    results = [_result("base", 1, 0.75, 0.5), _result("base", 2, 0.75, 0.5), _result("permuted", 2, 0.5, 0.5, steps)]
    told = headline(_findings(*results), "made-up", [])
    assert (told["steps_equal"], told["bootstrap_steps"]) == (steps == 25, 40)


def test_the_teacher_as_an_input_is_judged_without_and_with_its_profiles() -> None:
    """The control of such a variant has its logits alone; transferability is over that one."""
    grid = _GRID.model_copy(
        update={"variants": [*_GRID.variants, Variant(name="inputs", teacher_as_input=True, without=["*"])]}
    )
    base = [_result("base", seed, 0.75, 0.5) for seed in range(1, 6)]
    inputs = [_result("inputs", seed, 0.875, 0.625) for seed in range(1, 6)]
    told = headline(Findings(grid, _TASKS, [*base, *inputs], {}), "made-up", [])
    auc = told["auc"]["click"]
    assert (auc["teacher_as_input"], auc["teacher_as_input_and_profiles"]) == (0.625, 0.875)
    assert told["transferability"]["click"] == 2.0
    text = tables(Findings(grid, _TASKS, [*base, *inputs], {}), [])
    assert "| than control | than teacher | than teacher as input | than teacher as input and profiles |" in text


def test_a_question_shows_each_arm_less_that_of_the_baseline_and_what_the_teacher_scores() -> None:
    late = {"all": {"click": {"student": 0.625, "control": 0.625}}}
    base, heavy = _result("base", 1, 0.75, 0.5), _result("heavy", 1, 0.6875, 0.5625)
    text = tables(_findings(base.model_copy(update={"served": late}), heavy.model_copy(update={"served": late})), [])
    assert "### Weight: AUC of `click` (100 examples)" in text
    assert "| student - control | first 500 | student - base's | student - base's, served | control - base's |" in text
    assert "| **base** | 1 | 0.7500 / 0.5000 / 0.6250 | +0.2500 | - | - | - | - | - |" in text
    assert (
        "| **heavy** weighs more | 1 | 0.6875 / 0.5625 / 0.6250 | +0.1250 | - | -0.0625 | +0.0000 | +0.0625 | +0.0000 |"
        in text
    )


def test_the_headline_has_what_was_served_beside_what_was_judged_row_by_row() -> None:
    late = {"all": {"click": {"student": 0.6875, "control": 0.625}}}
    told = headline(_findings(_result("base", 1, 0.75, 0.5).model_copy(update={"served": late})), "made-up", [])
    assert told["served"]["click"]["student"] == 0.6875
    assert told["auc"]["click"]["student"] == 0.75
    assert (told["gain"]["click"]["mean"], told["gain"]["served"]["click"]["mean"]) == (0.25, 0.0625)


def _plain(value: float, seed: int = 1, share: float = 1.0) -> Result:
    scores = {"all": {"click": {"lr": value, "lr_teacher": value}}}
    return _result(PLAIN_VARIANT, seed, 0, 0).model_copy(update={"scores": scores, "share": share})


def test_a_plain_model_without_a_seed_is_compared_with_every_seed() -> None:
    found = _findings(*(_result("base", seed, 0.75, 0.5) for seed in range(1, 6)), _plain(0.625))
    gain = found.gain("base", "all", "click", (PLAIN_VARIANT, "lr"))
    assert gain is not None
    assert (gain.mean, gain.seeds) == (0.125, 5)
    assert headline(found, "made-up", [])["auc"]["click"]["lr"] == 0.625
    assert "| 0.6250 |" in tables(found, [])


def test_a_share_of_the_users_is_compared_draw_by_draw_and_apart_from_the_whole_log() -> None:
    thin = [_result("base", draw, 0.5 + draw / 8, 0.5).model_copy(update={"share": 0.1}) for draw in (1, 2)]
    plain = [_plain(0.25 + draw / 8, draw, 0.1) for draw in (2, 1)]
    whole = [_result("base", 1, 0.9, 0.5), _plain(0.1)]
    grid = _GRID.model_copy(update={"thin": [0.1]})
    found = Findings(grid, _TASKS, [*thin, *plain, *whole], {})
    gain = found.at(0.1).gain("base", "all", "click", (PLAIN_VARIANT, "lr"))
    assert gain is not None
    assert (gain.mean, gain.low, gain.seeds) == (0.25, 0.25, 2)
    told = headline(found, "made-up", [])
    assert [(part["share"], part["draws"], part["student"]) for part in told["thin"]] == [
        (0.1, 2, 0.6875),
        (1.0, 1, 0.9),
    ]
    assert told["auc"]["click"]["student"] == 0.9


def test_the_tail_after_the_last_edge_is_a_window_of_its_own() -> None:
    result = _result("base", 1, 0.75, 0.5)
    result = result.model_copy(update={"examples": 130, "scores": {**result.scores, "100-end": result.scores["all"]}})
    windows = headline(_findings(result), "made-up", [])["windows"]
    assert [(window["from"], window["to"]) for window in windows] == [(0, 100), (100, 130)]
    assert windows[1]["auc"]["click"]["student"] == 0.75


def test_the_first_examples_count_as_a_window_of_harm() -> None:
    early = {"click": {"student": 0.25, "control": 0.5}}
    permuted = _result("permuted", 1, 0.5, 0.5625)
    permuted = permuted.model_copy(update={"scores": {**permuted.scores, "first 500": early}})
    harm = headline(_findings(_result("base", 1, 0.75, 0.5), permuted), "made-up", [])["harm"]["permuted"]
    assert harm["worst_window"] == 0.25


def test_the_harm_of_a_permuted_teacher_is_what_its_student_loses_to_its_control() -> None:
    worst = {"click": {"student": 0.5, "control": 0.625}}
    permuted = _result("permuted", 1, 0.5, 0.5625)
    permuted = permuted.model_copy(update={"scores": {"all": permuted.scores["all"], "0-100": worst}})
    harm = headline(_findings(_result("base", 1, 0.75, 0.5), permuted), "made-up", [])["harm"]["permuted"]
    assert (harm["whole"], harm["worst_window"]) == (0.0625, 0.125)
    assert harm["tasks"]["click"] == {"worst_window": 0.125, "whole": 0.0625}


def test_the_interval_is_students() -> None:
    """t(0.975, 4) = 2.776445; the deviation of 1 to 5 is sqrt(2.5): half = 2.776445 * sqrt(2.5 / 5)."""
    mean, low, high, seeds = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, seeds) == (3.0, 5)
    assert (low, high) == (pytest.approx(3 - 1.963243), pytest.approx(3 + 1.963243))


def test_pairing_removes_what_both_share() -> None:
    gain = paired([1.1, 5.1, 9.1, 2.1, 3.1], [1.0, 5.0, 9.0, 2.0, 3.0])
    assert gain.mean == pytest.approx(0.1)
    assert gain.excludes_zero
    assert not interval([1.1, 5.1, -9.1, 2.0, -1.0]).excludes_zero


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
def test_fewer_than_five_seeds_have_no_interval(values: list[float]) -> None:
    assert interval(values) == (0.5, 0.5, 0.5, len(values))
    assert not interval(values).excludes_zero
