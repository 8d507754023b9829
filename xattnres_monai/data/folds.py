"""Folds of a cross-validation, split by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from monai.data import partition_dataset

__all__ = ["assign_folds", "official_fold", "training_cases", "validation_cases"]

Case = dict[str, Any]
NEVER = -1  # the fold of cases that only train


def assign_folds(cases: Iterable[Case], folds: int, seed: int) -> list[Case]:
    """Give every case the number of the fold that validates on it.

    All cases of a patient are in one fold, and folds depend on the patients and the seed, not on the order of files.

    Args:
        cases: dictionaries with ``case_id`` and ``patient_id``.
        folds: number of folds.
        seed: of the shuffle.

    Returns:
        The cases in the order of their ids, each with ``fold`` in ``0 … folds - 1``.

    Raises:
        ValueError: when there are fewer patients than folds, or a case is there twice.
    """
    cases = _in_order(cases)
    patients = sorted({case["patient_id"] for case in cases})
    if not 1 < folds <= len(patients):
        raise ValueError(f"got folds={folds}, expected 2 … {len(patients)}, since there are {len(patients)} patients")
    partitions = partition_dataset(patients, num_partitions=folds, shuffle=True, seed=seed)
    fold_of = {patient: fold for fold, partition in enumerate(partitions) for patient in partition}
    return [{**case, "fold": fold_of[case["patient_id"]]} for case in cases]


def official_fold(cases: Iterable[Case], validates: Callable[[Case], bool]) -> list[Case]:
    """The split that a data set was published with, as its only fold.

    Args:
        cases: dictionaries with ``case_id`` and ``patient_id``.
        validates: whether a case is for validation.

    Returns:
        The cases in the order of their ids; ``fold`` is 0 in those that validate and -1 in the others, which never do.

    Raises:
        ValueError: when a case is there twice, or a patient both trains and validates.
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
    """The cases outside ``fold``; a ``ValueError`` when no case is inside."""
    validating = validation_cases(cases, fold)
    return [case for case in cases if case not in validating]


def validation_cases(cases: list[Case], fold: int) -> list[Case]:
    """The cases inside ``fold``; a ``ValueError`` when there is none."""
    present = {case["fold"] for case in cases} - {NEVER}
    if fold not in present:
        raise ValueError(f"got fold={fold}, expected one of {sorted(present)}")
    return [case for case in cases if case["fold"] == fold]
