from __future__ import annotations

import random

import pytest

from xattnres_monai.data.folds import assign_folds, official_fold, training_cases, validation_cases

CASES = [
    {"case_id": f"p{patient:02d}_{frame}", "patient_id": f"p{patient:02d}"} for patient in range(11) for frame in "ab"
]


def test_no_patient_is_in_two_folds_and_every_case_validates_once():
    cases = assign_folds(CASES, folds=5, seed=0)
    folds = {}
    for case in cases:
        folds.setdefault(case["patient_id"], set()).add(case["fold"])
    assert all(len(numbers) == 1 for numbers in folds.values())
    validated = [case["case_id"] for fold in range(5) for case in validation_cases(cases, fold)]
    assert sorted(validated) == sorted(case["case_id"] for case in CASES)


def test_training_and_validation_share_nothing_and_miss_nothing():
    cases = assign_folds(CASES, folds=5, seed=0)
    for fold in range(5):
        training = {case["case_id"] for case in training_cases(cases, fold)}
        validation = {case["case_id"] for case in validation_cases(cases, fold)}
        assert not training & validation and len(training | validation) == len(CASES)


def test_folds_depend_on_the_seed_and_not_on_the_order_of_files():
    shuffled = random.Random(1).sample(CASES, len(CASES))
    assert assign_folds(shuffled, folds=3, seed=4) == assign_folds(CASES, folds=3, seed=4)
    assert assign_folds(CASES, folds=3, seed=5) != assign_folds(CASES, folds=3, seed=4)


@pytest.mark.parametrize("folds", [1, 12])
def test_impossible_numbers_of_folds(folds):
    with pytest.raises(ValueError, match=rf"got folds={folds}, expected 2 … 11"):
        assign_folds(CASES, folds=folds, seed=0)


def test_a_fold_that_does_not_exist():
    with pytest.raises(ValueError, match=r"got fold=7, expected one of \[0, 1, 2\]"):
        training_cases(assign_folds(CASES, folds=3, seed=0), 7)


def test_cases_that_only_train_are_no_fold():
    cases = official_fold(CASES, lambda case: case["patient_id"] == "p03")
    assert {case["patient_id"] for case in validation_cases(cases, 0)} == {"p03"}
    with pytest.raises(ValueError, match=r"got fold=-1, expected one of \[0\]"):
        validation_cases(cases, -1)


@pytest.mark.parametrize("split", [lambda cases: assign_folds(cases, 2, 0), lambda cases: official_fold(cases, bool)])
def test_a_case_that_is_there_twice(split):
    with pytest.raises(ValueError, match=r"^got cases more than once: p01_a, p02_b, expected each .*; take .* out$"):
        split([*CASES, CASES[2], CASES[5]])


def test_a_patient_who_trains_and_validates():
    with pytest.raises(ValueError, match=r"^got patients on both sides of the split: p03, expected .*; take .* out$"):
        official_fold(CASES, lambda case: case["case_id"] == "p03_b" or case["patient_id"] == "p04")
