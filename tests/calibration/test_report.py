"""Test the report: one file, with all parts that have content and no others."""

import base64
import json
import re
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from vmp_edge.calibration import circumstances, clipset, report
from vmp_edge.calibration.clipset import Entry
from vmp_edge.calibration.decoding import Skipped
from vmp_edge.calibration.measure import evaluate_bundles
from vmp_edge.calibration.report import Report
from vmp_edge.calibration.timing import Timing
from vmp_edge.errors import MissingDependencyError, UsageError

from .test_measure import make_evaluation

pytest.importorskip("jinja2", reason="needs the extra `report`")


DATE = datetime(2026, 11, 28, 9, 30, tzinfo=timezone.utc)
COMMAND = ("/usr/bin/vmp-edge", "evaluate", "build/host", "--data", "my clips")


class Page(HTMLParser):
    """Collects headings, addresses of pictures, and all text; fails if a tag does not close."""

    VOID = ("meta", "img", "br")

    def __init__(self, html):
        super().__init__()
        self.open, self.headings, self.pictures, self.bars, self.text, self.json = [], [], [], [], "", None
        self.feed(html)
        assert not self.open
        self.words = " ".join(self.text.split())
        self.bars = [" ".join(bar.split()) for bar in self.bars]

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.pictures += [dict(attrs)["src"]] if tag == "img" else []
        self.bars += [""] if dict(attrs).get("class") == "bar" else []
        self.text += " "
        assert not {"href", "srcset"} & set(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.json = json.loads(data)
            return
        if self.open[-1:] == ["style"]:
            return
        self.text += data
        if "span" in self.open and self.bars:
            self.bars[-1] += f" {data}"
        if self.open[-1:] in (["h1"], ["h2"]):
            self.headings.append(data)


def content(address):
    kind, code = re.fullmatch(r"data:image/([a-z+]+);base64,(.*)", address).groups()
    return kind, base64.b64decode(code)


def test_one_file_says_it_all(bundle, damaged, tmp_path):
    clips = clipset.read(damaged)
    (evaluation,) = evaluate_bundles([str(bundle)], clips, workers=0, rounds=1)
    path = tmp_path / "out.html"
    report.write(Report(evaluation, data=clips.name, worst=2, date=DATE, command=COMMAND), path)
    page = Page(path.read_text())
    assert page.headings == [
        str(bundle), "What the accuracy is worth", "Size and speed", "Accuracy by label", "Confusion",
        "Videos whose own label scored lowest", "Videos that could not be used", "How this was measured",
    ]  # fmt: skip
    for part in (
        "a-empty.mp4", "brightness fp32 for host", "100.0% top-1 95% interval 70.1 to 100.0%",
        "chance, guessing among 3 classes 33.3%", "always brighter, the most frequent label 33.3%",
        "9 of 9 videos recognised. The interval is Wilson's.",
        "2026-11-28 09:30 UTC", "vmp-edge evaluate build/host --data 'my clips'", "usable CPU", "numpy",
        f"SHA-256 {evaluation.facts['sha256'][:16]}", "9 videos can tell little",
    ):  # fmt: skip
        assert part in page.words
    assert [content(picture)[0] for picture in page.pictures] == ["jpeg"] * 2
    thumbnail = cv2.imdecode(np.frombuffer(content(page.pictures[-1])[1], np.uint8), cv2.IMREAD_COLOR)
    assert thumbnail.shape == (96, 4 * 128, 3)
    assert "http" not in re.sub(r"data:[^\"]*", "", path.read_text()), "nothing is fetched"
    assert not list(tmp_path.glob("*.partial*"))
    assert page.json["top1"] == 1.0 and page.json["date"].startswith("2026-11-28T09:30")


def test_what_a_quantised_build_adds():
    quantised = make_evaluation(
        [0, 1, 2], [0, 1, 1], facts={"precision": "int8", "engine": "x", "bytes": 1_000_000}, folds=[0, 1, 2]
    )
    baseline = make_evaluation(
        [0, 1, 2], [0, 1, 2], facts={"precision": "fp32", "engine": "x", "bytes": 4_000_000}, folds=[0, 1, 2]
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
        "What the accuracy is worth", "Size and speed", "Accuracy by label", "Confusion",
        "Signal-to-noise ratio by layer", "Folds", "Ablation", "Videos that the two models recognise differently",
        "Videos whose own label scored lowest", "Details", "How this was measured",
    ]  # fmt: skip
    for part in (
        "fp32 100.0%; -33.3 points", "66.7% agreement with fp32", "25.0% of fp32", "all <of> it", "int8 & more",
        "1.00 MB 4.00 MB", "The speed was not measured",
    ):  # fmt: skip
        assert part in page.words
    assert "no picture" in page.words, "the videos are not there"


def timed(seconds, load=0.01, **changes):
    return make_evaluation([0, 1], [0, 1], timing=Timing(np.tile(seconds, 3), load), **changes)


def test_the_headline_is_a_claim_only_after_a_quiet_measurement():
    fast, slow = [0.1, 0.101, 0.1], [1.06, 1.064, 1.061]
    quiet = Page(report.render(Report(timed(fast, name="int8"), timed(slow, name="fp32")))).words
    assert "100 ms a clip, median half of the runs 100 to 101 ms 10.6 times as fast as fp32" in quiet
    assert "1060 ms" in quiet and "e+0" not in quiet and "not a claim" not in quiet
    assert "9 rounds, in each of which both models ran in turn" in quiet
    for load, words in (
        (0.43, "Measured on a busy machine; not a claim: other programs took 43.0%"),
        (None, "not a claim"),
    ):
        busy = Page(report.render(Report(timed(fast, load, name="int8"), timed(slow, load, name="fp32")))).words
        assert "times as fast" not in busy and words in busy
        assert "median and middle half of the rounds: 10.6 (10.5 to 10.6)" in busy, "the table stays"
    uneven = Page(report.render(Report(timed([1.0, 3.0, 9.0], name="int8"), timed([1.0, 1.0, 1.0], name="fp32")))).words
    assert "times as fast" not in uneven and "Measured unevenly; not a claim" in uneven


def test_labels_of_the_float_model_are_agreement_and_no_accuracy():
    first = make_evaluation([0, 1, 2, 2], [0, 1, 2, 2], labelled=False, name="int8")
    second = make_evaluation([0, 1, 2, 2], [0, 1, 2, 2], labelled=False, name="fp32")
    html = report.render(Report(first, second))
    page = Page(html)
    assert "100.0% agreement with fp32" in page.words and "The videos have no labels." in page.words
    for word in ("top-1", "top-5", "ccuracy by", "is worth", "chance"):
        assert word not in html
    assert page.headings[1:4] == ["Agreement by label", "What the two models recognise", page.headings[3]]
    assert "top1" not in page.json and page.json["compare"]["agreement"] == 1.0


def test_of_many_layers_the_worst_twenty():
    ratios = {f"blocks.{i}.out": 60.0 - i % 90 / 3 for i in range(163)}
    page = Page(report.render(Report(make_evaluation([0, 1], [0, 1]), layers=ratios)))
    assert "The 20 of 163 layers with the lowest ratio, the lowest first." in page.words
    assert len(page.bars) == 3 + 20 - 1 and page.bars[2].startswith("blocks.89.out 30.3 dB")
    assert page.json["layers_db"] == ratios and "All 163 layers" in page.words
    few = Page(report.render(Report(make_evaluation([0, 1], [0, 1]), layers={"a": 30.0, "b": 20.0, "c": np.inf})))
    assert [bar.split()[0] for bar in few.bars[2:]] == ["b", "a", "c"] and "All 3" not in few.words
    assert few.json["layers_db"]["c"] is None


def test_of_many_classes_those_that_matter():
    labels = tuple(f"class-{i}" for i in range(400))

    def evaluation(truth, predictions):
        entries = tuple(Entry(Path(f"{i}.avi"), labels[t]) for i, t in enumerate(truth))
        scores = np.eye(400, dtype=np.float32)[predictions]
        return make_evaluation([], [], labels=labels, entries=entries, scores=scores)

    html = report.render(Report(evaluation([3, 5, 7], [3, 5, 9])))
    page = Page(html)
    assert "Only the 4 of 400 classes that occur are shown." in page.words and "5.0 to" not in page.words
    assert "chance 1.2%" in page.words or "chance 1.3%" in page.words, "of top-5"
    assert html.count('<td class="') == 3, "cells with videos"
    many = list(range(50))
    page = Page(report.render(Report(evaluation([*many, 60, 60, 61], [*many, 62, 62, 60]))))
    assert "The most frequent mistakes. 53 of 400 classes occur." in page.words
    assert "class-60 class-62 2 of 2 class-61 class-60 1 of 1" in page.words
    assert "The 20 of 52 labels that are recognised least." in page.words
    assert [bar.split()[0] for bar in page.bars[:2]] == ["class-60", "class-61"] and len(page.bars) == 20
    right = Page(report.render(Report(evaluation(many, many))))
    assert "There are no mistakes. 50 of 400 classes occur." in right.words


def test_a_single_number_gets_no_chart():
    page = Page(report.render(Report(make_evaluation([1], [1], facts={"bytes": 5}))))
    assert page.bars == [] and "Confusion" not in page.headings and "Accuracy by label" not in page.headings
    assert "1 video can tell little" in page.words and "All videos have the same label." in page.words
    assert "1 of 1 video recognised" in page.words and "20.7 to 100.0%" in page.words
    assert "It reaches down to what can be had without looking at the videos." in page.words


def test_an_evaluation_of_nothing_says_so():
    page = Page(report.render(Report(make_evaluation([], [], skipped=(Skipped(Path("x.mp4"), "empty"),)))))
    assert "No video could be used, so nothing was measured." in page.words and "x.mp4 empty" in page.words
    assert page.headings[1:] == ["Videos that could not be used", "How this was measured"]
    assert "nan" not in page.words.lower().replace("unknown", "") and page.json["top1"] == 0.0


def test_groups_are_named():
    entries = tuple(Entry(Path(f"{i}.avi"), "ab"[i % 2], group=f"scene {i // 2}") for i in range(4))
    page = Page(report.render(Report(make_evaluation([0, 1, 0, 1], [0, 1, 0, 1], entries=entries))))
    assert "4 videos of 2 groups" in page.words and "the true interval is wider" in page.words


def test_the_same_numbers_give_the_same_file():
    content = Report(make_evaluation([0, 1], [0, 1]))
    assert report.render(content) == report.render(content)


def test_odd_names_are_shown_and_do_nothing(tmp_path):
    names = ("x<y>&.avi", "caf\udce9.avi", "a\x1b[31m\u202eb\n.avi", "<img src=x onerror=alert(1)>.avi")
    labels = ("</script><a>", "b&c\u202e", "$d^$", "{{ e }}")
    entries = tuple(Entry(Path(name), label) for name, label in zip(names, labels, strict=True))
    evaluation = make_evaluation(
        [], [], labels=labels, entries=entries, name="out/\udcff<b>",
        scores=np.eye(4, dtype=np.float32)[[0, 1, 2, 2]], skipped=(Skipped(Path("no\udce9<i>.mp4"), "<empty>\x07"),),
    )  # fmt: skip
    path = tmp_path / "out.html"
    content = Report(evaluation, data="from\udce9 <here>", details={"a<b": "c\u2066d"}, command=("vmp-edge", "\udce9"))
    report.write(content, path)
    html = path.read_bytes().decode("utf-8", "strict")
    page = Page(html)
    for part in (
        "x<y>&.avi", "caf\\xe9.avi", "a\\x1b[31m\\u202eb\\n.avi", "<img src=x onerror=alert(1)>.avi", "</script><a>",
        "b&c\\u202e",
        "$d^$", "{{ e }}", "out/\\xff<b>", "no\\xe9<i>.mp4", "<empty>\\x07", "from\\xe9 <here>", "c\\u2066d",
    ):  # fmt: skip
        assert part in page.words, part
    assert html.count("<script") == 1 and not set("\x1b\u202e\u2066\x07") & set(html)
    assert page.json["skipped"][0]["path"] == "no\udce9<i>.mp4"


def test_the_command_is_shown_without_secrets():
    command = ("/usr/bin/vmp-edge", "evaluate", "b", "--data", "rtsp://me:secret@camera/1", "--report", "a b.html")
    page = Page(report.render(Report(make_evaluation([0, 1], [0, 1]), command=command, date=DATE)))
    assert "vmp-edge evaluate b --data" in page.words and "'a b.html'" in page.words and "secret" not in page.words
    assert circumstances.command_line(("compile/build.py", "--json")) == "python compile/build.py --json"
    assert circumstances.command_line(("",)) == circumstances.command_line(("-c",)) == "typed into Python"


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
