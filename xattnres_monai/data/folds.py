"""Folds of a cross-validation, split by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from monai.data import partition_dataset

__all__ = ["assign_folds", "official_fold", "training_cases", "validation_cases"]

Case = dict[str, Any]
NEVER = -1  # the fold of cases that never validate


def assign_folds(cases: Iterable[Case], folds: int, seed: int) -> list[Case]:
    """Give every case the number of the fold in which it is a validation case.

    All cases of a patient are in the same fold. The folds depend on the patients and the seed, not on the order of the
    files.

    Args:
        cases: dictionaries with ``case_id`` and ``patient_id``.
        folds: number of folds, 2 or more.
        seed: seed of the shuffle.

    Returns:
        The cases in the order of their ids, each with ``fold`` in ``0 … folds - 1``.

    Raises:
        ValueError: when there are fewer than 2 folds, when there are fewer patients than folds, or when a case occurs
            twice.
    """
    cases = _in_order(cases)
    patients = sorted({case["patient_id"] for case in cases})
    if not 1 < folds <= len(patients):
        raise ValueError(f"got folds={folds}, expected 2 … {len(patients)}, since there are {len(patients)} patients")
    partitions = partition_dataset(patients, num_partitions=folds, shuffle=True, seed=seed)
    fold_of = {patient: fold for fold, partition in enumerate(partitions) for patient in partition}
    return [{**case, "fold": fold_of[case["patient_id"]]} for case in cases]


def official_fold(cases: Iterable[Case], validates: Callable[[Case], bool]) -> list[Case]:
    """Assign the cases to the split that the data set was published with: its validation cases are fold 0.

    Args:
        cases: dictionaries with ``case_id`` and ``patient_id``.
        validates: function that tells whether a case is a validation case.

    Returns:
        The cases in the order of their ids. ``fold`` is 0 for validation cases and -1 for the others, which never
        validate.

    Raises:
        ValueError: when a case occurs twice, or when a patient has cases on both sides of the split.
    """
    cases = [{**case, "fold": 0 if validates(case) else NEVER} for case in _in_order(cases)]
    sides = Counter(patient for patient, _ in {(case["patient_id"], case["fold"]) for case in cases})
    _refuse_repeated(sides, "patients on both sides of the split")
    return cases


def _in_order(cases: Iterable[Case]) -> list[Case]:
    cases = sorted(cases, key=lambda case: case["case_id"])
    _refuse_repeated(Counter(case["case_id"] for case in cases), "cases more than once")
    return cases


def _refuse_repeated(counts: Counter[str], what: str) -> None:
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ValueError(f"got {what}: {', '.join(repeated)}, expected each in one place; take the copies out")


def training_cases(cases: list[Case], fold: int) -> list[Case]:
    """Return the cases outside ``fold``. Raise a ``ValueError`` if no case is in it."""
    validating = validation_cases(cases, fold)
    return [case for case in cases if case not in validating]


def validation_cases(cases: list[Case], fold: int) -> list[Case]:
    """Return the cases in ``fold``. Raise a ``ValueError`` if there are none."""
    present = {case["fold"] for case in cases} - {NEVER}
    if fold not in present:
        raise ValueError(f"got fold={fold}, expected one of {sorted(present)}")
    return [case for case in cases if case["fold"] == fold]
