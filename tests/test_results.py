"""Figures and pictures about the shipped models belong to the weights that ship."""

import json
import shutil
from pathlib import Path

import pytest
import result_pages
import results
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def test_nothing_is_stale():
    assert results.list_stale() == []


def test_a_report_of_other_weights_is_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    report = results.Report("lengths")
    assert report.stale() == "it is missing"
    shutil.copy(ROOT / "docs" / "results" / "tiny" / "lengths.json", report.file)
    assert report.stale() is None
    changed = json.loads(report.file.read_text())
    changed["provenance"]["models"]["dove-tiny"] = "0" * 64
    report.file.write_text(json.dumps(changed))
    assert report.stale() == "it was made from other weights of dove-tiny"


def test_a_picture_without_the_hash_of_the_weights_is_stale(tmp_path):
    picture = tmp_path / "picture.jpg"
    assert results.stale_picture(picture) == "it is missing"
    Image.new("RGB", (8, 8)).save(picture)
    assert results.stale_picture(picture) == "it was drawn with other weights"


def test_a_figure_changed_by_hand_is_found_and_put_right(tmp_path):
    page = tmp_path / "README.md"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    psnr = result_pages.rows_of(results.read_reports(), "dove-tiny")[4]["psnr"]
    page.write_text(text.replace(f"{psnr:.2f}", "99.99"), encoding="utf-8")
    assert result_pages.replace_sections(page, tmp_path, results.read_reports()) == text


def test_a_page_without_its_section_is_an_error(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="0 sections models"):
        result_pages.replace_sections(page, tmp_path, results.read_reports())


@pytest.mark.parametrize(("ours", "told"), [(0.5, "at least 3% nearer"), (0.99, "not nearer")])
def test_the_verdict_follows_the_figures(ours, told):
    rows = [
        {"model": model, "num_tokens": k, "psnr": 20.0, "psnr_p10": 17.0, "perceptual_squeezenet": distance}
        for model, distance in (("dove-tiny", ours), ("cosines", 1.0))
        for k in result_pages.LENGTHS
    ]
    if ours > 0.9:
        assert told in result_pages.verdict({"reconstruction": {"rows": rows}})
    else:
        rows[5]["perceptual_squeezenet"] = 1.0  # 32 tokens, no gain
        sentence = result_pages.verdict({"reconstruction": {"rows": rows}})
        assert told in sentence
        assert "at 32 tokens it is not" in sentence
