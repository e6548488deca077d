"""The forms of a report lie beside each other."""

from __future__ import annotations

from pathlib import Path

from prerank.report import files


def test_each_text_is_a_file_of_its_kind(tmp_path: Path) -> None:
    found = files.write(tmp_path / "new" / "report", "abtest", {"json": "{}", "md": "# A\n"})
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["new/report/abtest.json", "new/report/abtest.md"]
    assert [p.read_text() for p in found] == ["{}", "# A\n"]
