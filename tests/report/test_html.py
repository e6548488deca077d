import base64

from prerank.report import Column, Table, html


def test_a_table_is_escaped_and_numbers_stand_right():
    table = Table("t", [Column("name"), Column("AUC")])
    table.add({"name": "<b>x</b>", "AUC": 0.5})
    text = html.table(table, under=["a & b"])
    assert '<th class="number">AUC</th>' in text
    assert '<td class="number">0.5000</td>' in text
    assert "<td>&lt;b&gt;x&lt;/b&gt;<small>a &amp; b</small></td>" in text


def test_a_picture_is_inside(tmp_path):
    (tmp_path / "p.png").write_bytes(b"png")
    text = html.picture(tmp_path / "p.png", 'says "so"')
    assert f"data:image/png;base64,{base64.b64encode(b'png').decode()}" in text
    assert 'alt="says &quot;so&quot;"' in text


def test_a_page_is_a_document():
    text = html.page("a < b", ["<p>one</p>", "<p>two</p>"])
    assert text.startswith("<!DOCTYPE html>")
    assert "<title>a &lt; b</title>" in text
    assert "<p>one</p>\n<p>two</p>" in text
