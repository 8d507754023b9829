"""Folds of a cross-validation, split by patient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monai.data import partition_dataset

__all__ = ["assign_folds", "training_cases", "validation_cases"]

Case = dict[str, Any]


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
        ValueError: when there are fewer patients than folds.
    """
    cases = sorted(cases, key=lambda case: case["case_id"])
    patients = sorted({case["patient_id"] for case in cases})
    if not 1 < folds <= len(patients):
        raise ValueError(f"got folds={folds}, expected 2 … {len(patients)}, since there are {len(patients)} patients")
    partitions = partition_dataset(patients, num_partitions=folds, shuffle=True, seed=seed)
    fold_of = {patient: fold for fold, partition in enumerate(partitions) for patient in partition}
    return [{**case, "fold": fold_of[case["patient_id"]]} for case in cases]


def training_cases(cases: list[Case], fold: int) -> list[Case]:
    """The cases outside ``fold``; a ``ValueError`` when no case is inside."""
    validating = validation_cases(cases, fold)
    return [case for case in cases if case not in validating]


def validation_cases(cases: list[Case], fold: int) -> list[Case]:
    """The cases inside ``fold``; a ``ValueError`` when there is none."""
    chosen = [case for case in cases if case["fold"] == fold]
    if not chosen:
        raise ValueError(f"got fold={fold}, expected one of {sorted({case['fold'] for case in cases})}")
    return chosen
