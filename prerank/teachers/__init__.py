"""A ranking model's opinion of every row of a log, written beside the log's own columns: what a pre-ranker is distilled from.

    taught = teach([config], "runs/teacher/teacher.parquet", folds=5)     the log + teacher_score

Scores on the train part are out-of-fold, hidden vectors come from one ranker that walks through time: no row is annotated by a model
that has seen it.
"""

from prerank.teachers.fold_log import FoldLog
from prerank.teachers.teach import Taught, teach

__all__ = ["FoldLog", "Taught", "teach"]
