"""Scoring: confusion and IoU worked out by hand, what is left out, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache_schemas.scoring import ScoringRule, confusion_matrix, confusion_with_unlabelled, score


def ids(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)


def test_confusion_has_truth_in_rows_and_labels_in_columns() -> None:
    confusion = confusion_matrix(ids(0, 0, 0, 1, 2), ids(0, 0, 1, 2, 2), 3)
    assert confusion.tolist() == [[2, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_scores_of_a_small_case_worked_out_by_hand() -> None:
    # IoU: class 0 is 6 / (6 + 2 + 1), class 1 is 3 / (3 + 1 + 2); 9 of 12 are right.
    scores = score(np.array([[6, 2], [1, 3]]))
    assert scores.iou == pytest.approx([6 / 9, 3 / 6])
    assert scores.recall == pytest.approx([6 / 8, 3 / 4])
    assert scores.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert scores.accuracy == pytest.approx(9 / 12)
    assert scores.scored == 12


def test_a_class_in_neither_truth_nor_labels_is_nan_and_leaves_the_mean() -> None:
    scores = score(confusion_matrix(ids(0, 0), ids(0, 0), 3))
    assert scores.miou == 1
    assert np.isnan(scores.iou).tolist() == [False, True, True]


def test_a_class_that_is_only_predicted_has_iou_zero_and_no_recall() -> None:
    scores = score(confusion_matrix(ids(0, 0), ids(0, 1), 2))
    assert scores.iou.tolist() == [0.5, 0]
    assert scores.miou == 0.25
    assert np.isnan(scores.recall).tolist() == [False, True]


def test_ignored_truth_and_ignored_labels_are_left_out() -> None:
    confusion = confusion_matrix(ids(0, 255, 1, 255), ids(0, 1, 255, 255), 2)
    assert confusion.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("truth, label", [(ids(), ids()), (ids(255, 255), ids(0, 1))])
def test_nothing_to_score_gives_nan_and_no_warning(truth: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
    scores = score(confusion_matrix(truth, label, 2))
    assert scores.scored == 0
    assert math.isnan(scores.miou) and math.isnan(scores.accuracy)
    assert np.isnan(scores.iou).all() and np.isnan(scores.recall).all()


def test_an_id_that_is_no_class_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="truth id 3 is neither below 3 nor 255"):
        confusion_matrix(ids(0, 3), ids(0, 0), 3)
    with pytest.raises(ValueError, match="label id 254 is neither below 3 nor 255"):
        confusion_matrix(ids(0, 0), ids(254, 0), 3)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth has shape \(2,\), labels \(3,\)"):
        confusion_matrix(ids(0, 0), ids(0, 0, 0), 1)


def test_images_are_scored_element_by_element() -> None:
    truth, label = ids(0, 1, 1, 255).reshape(2, 2), ids(0, 0, 1, 1).reshape(2, 2)
    assert confusion_matrix(truth, label, 2).tolist() == [[1, 0], [1, 1]]


CASE = (ids(0, 0, 0, 0, 1, 255), ids(0, 0, 1, 255, 1, 1), 3)
"""Of truth 0, two are right, one is called 1, one has no label; of truth 1, one is right; class 2 is absent."""


def test_the_last_column_counts_truth_without_a_label() -> None:
    assert confusion_with_unlabelled(*CASE).tolist() == [[2, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert confusion_matrix(*CASE).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    "unlabelled, absent, iou, miou, accuracy, scored",
    [
        ("ignore", "leave", [2 / 3, 1 / 2, math.nan], (2 / 3 + 1 / 2) / 2, 3 / 4, 4),
        ("miss", "leave", [2 / 4, 1 / 2, math.nan], (2 / 4 + 1 / 2) / 2, 3 / 5, 5),
        ("miss", "zero", [2 / 4, 1 / 2, 0], (2 / 4 + 1 / 2) / 3, 3 / 5, 5),
        ("ignore", "zero", [2 / 3, 1 / 2, 0], (2 / 3 + 1 / 2) / 3, 3 / 4, 4),
    ],
)
def test_each_rule_worked_out_by_hand(
    unlabelled: str, absent: str, iou: list[float], miou: float, accuracy: float, scored: int
) -> None:
    rule = ScoringRule(unlabelled, absent)
    scores = rule.score(confusion_with_unlabelled(*CASE))
    assert scores.iou == pytest.approx(iou, nan_ok=True)
    assert scores.miou == pytest.approx(miou)
    assert scores.accuracy == pytest.approx(accuracy)
    assert scores.scored == scored
    assert ("a miss" if unlabelled == "miss" else "left out") in rule.name
    assert ("IoU 0" if absent == "zero" else "not in the mean") in rule.name


def test_nothing_to_score_is_nan_under_every_rule() -> None:
    scores = ScoringRule("miss", "zero").score(confusion_with_unlabelled(ids(255), ids(255), 2))
    assert math.isnan(scores.miou) and np.isnan(scores.iou).all()


@given(
    st.integers(1, 5).flatmap(
        lambda classes: st.tuples(
            st.just(classes),
            st.lists(st.tuples(*[st.integers(0, classes - 1) | st.just(255)] * 2), max_size=30),
        )
    )
)
def test_scores_equal_a_count_over_single_elements(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, elements = case
    truth, label = ids(*(t for t, _ in elements)), ids(*(p for _, p in elements))
    scored = [(t, p) for t, p in elements if t != 255 and p != 255]
    scores = score(confusion_matrix(truth, label, classes))

    assert scores.scored == len(scored)
    accuracy = sum(t == p for t, p in scored) / len(scored) if scored else math.nan
    assert scores.accuracy == pytest.approx(accuracy, nan_ok=True)
    for c in range(classes):
        both = sum(t == c and p == c for t, p in scored)
        either = sum(t == c or p == c for t, p in scored)
        in_truth = sum(t == c for t, _ in scored)
        assert scores.iou[c] == pytest.approx(both / either if either else math.nan, nan_ok=True)
        assert scores.recall[c] == pytest.approx(both / in_truth if in_truth else math.nan, nan_ok=True)
