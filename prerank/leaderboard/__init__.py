"""Leaderboards: models x seeds trained in parallel, resumable, compared on the same test rows, with what scoring costs."""

from prerank.leaderboard.board import Bar, Board, Entry, Row, load
from prerank.leaderboard.leaderboard import leaderboard

__all__ = ["Bar", "Board", "Entry", "Row", "leaderboard", "load"]
