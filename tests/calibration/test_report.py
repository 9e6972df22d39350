"""Test the report: one file, with all parts that have content and no others."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from vmp_edge.calibration import clipset, report
from vmp_edge.calibration.clipset import Entry
from vmp_edge.calibration.measure import evaluate_bundles
from vmp_edge.calibration.report import Report
from vmp_edge.errors import MissingDependencyError, UsageError

from .test_measure import make_evaluation

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("matplotlib", reason="needs the extra `report`")


FACTS = {"model": "m", "engine": "x", "target": "host"}


class Page(HTMLParser):
    """Collects headings, addresses of pictures, and all text; fails if a tag does not close."""

    VOID = ("meta", "img", "br")

    def __init__(self, html):
        super().__init__()
        self.open, self.headings, self.pictures, self.text = [], [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.pictures += [dict(attrs)["src"]] if tag == "img" else []
        assert not {"href", "srcset"} & set(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open[-1:] in (["h1"], ["h2"]):
            self.headings.append(data)


def content(address):
    kind, code = re.fullmatch(r"data:image/([a-z+]+);base64,(.*)", address).groups()
    return kind, base64.b64decode(code)


def test_one_file_says_it_all(bundle, damaged, tmp_path):
    clips = clipset.read(damaged)
    (evaluation,) = evaluate_bundles([str(bundle)], clips, workers=0)
    path = tmp_path / "out.html"
    report.write(Report(evaluation, data=clips.name, worst=2), path)
    page = Page(path.read_text())
    assert page.headings == [
        str(bundle), "Accuracy by label", "Confusion", "Size", "Latency", "Videos whose own label scored lowest",
        "Videos that could not be used",
    ]  # fmt: skip
    assert "a-empty.mp4" in page.text and "brightness fp32 for host" in " ".join(page.text.split())
    kinds = [content(picture)[0] for picture in page.pictures]
    assert kinds == ["svg+xml"] * 4 + ["jpeg"] * 2
    thumbnail = cv2.imdecode(np.frombuffer(content(page.pictures[-1])[1], np.uint8), cv2.IMREAD_COLOR)
    assert thumbnail.shape == (96, 4 * 128, 3)
    assert "http" not in re.sub(r"data:[^\"]*", "", path.read_text()), "nothing is fetched"
    assert not list(tmp_path.glob("*.partial*"))


def test_what_a_quantised_build_adds():
    quantised = make_evaluation(
        [0, 1, 2], [0, 1, 1], facts={"precision": "int8", "engine": "x", "bytes": 10}, folds=[0, 1, 2]
    )
    baseline = make_evaluation(
        [0, 1, 2], [0, 1, 2], facts={"precision": "fp32", "engine": "x", "bytes": 40}, folds=[0, 1, 2]
    )
    html = report.render(
        Report(
            quantised,
            baseline,
            layers={f"layers.{i}": 20.0 + i for i in range(12)},
            details={"recipe": "int8 & more"},
            tables={"Ablation": [["what", "dB"], ["all <of> it", "31.0"]]},
        )
    )
    page = Page(html)
    assert page.headings[1:] == [
        "Accuracy by label", "Confusion", "Size", "Latency", "Signal-to-noise ratio by layer", "Folds", "Ablation",
        "Details", "Videos that the two models recognise differently", "Videos whose own label scored lowest",
    ]  # fmt: skip
    text = " ".join(page.text.split())
    for text_part in ("fp32 100.0%; -33.3 points", "66.7% agreement", "25.0% of fp32", "all <of> it", "int8 & more"):
        assert text_part in text
    assert "no picture" in text, "the videos are not there"


def test_the_same_numbers_give_the_same_file():
    content = Report(make_evaluation([0, 1], [0, 1]))
    assert report.render(content) == report.render(content)


def test_many_classes_and_odd_names():
    evaluation = make_evaluation([0, 1], [0, 1], labels=("<a>", "b&c", "d"), entries=(
        Entry(Path("x<y>.avi"), "<a>"), Entry(Path("z.avi"), "b&c"),
    ))  # fmt: skip
    assert "<a>" in Page(report.render(Report(evaluation))).text
    scores = np.eye(2, 400, dtype=np.float32)
    labels = tuple(f"class-{i}" for i in range(400))
    entries = tuple(Entry(Path(f"{i}.avi"), labels[i]) for i in range(2))
    page = Page(report.render(Report(make_evaluation([0, 1], [0, 1], labels=labels, entries=entries, scores=scores))))
    assert "top-5" in page.text


def test_models_are_told_apart():
    first, second = make_evaluation([0], [0], name="runs/a"), make_evaluation([0], [0], name="runs/b")
    assert report._names(first, second) == ["a", "b"]
    same = make_evaluation([0], [0], name="old/a")
    assert report._names(first, same) == ["runs/a", "old/a"]


def test_where_no_report_can_be(tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "none" / "out.html"):
        with pytest.raises(UsageError, match="give a file in a folder that exists"):
            report.check(path)
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"needs jinja2.*pip install .*\[report\]'"):
        report.check(tmp_path / "out.html")
