"""Test accuracy and agreement, on small cases counted by hand and with bundles on videos."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from brightness_engine import LABELS, BrightnessEngine
from bundles import make_manifest, write_bundle

from vmp_edge import load
from vmp_edge.calibration import clipset, timing
from vmp_edge.calibration.clipset import ClipSet, Entry
from vmp_edge.calibration.decoding import Sampling, Skipped
from vmp_edge.calibration.evaluation import wilson
from vmp_edge.calibration.measure import (
    Comparison,
    Evaluation,
    NoUsableVideoError,
    Subject,
    evaluate,
    evaluate_bundles,
    merge,
)
from vmp_edge.calibration.timing import Timing
from vmp_edge.errors import BundleError, UsageError
from vmp_edge.preprocessing import Preprocessing

from .conftest import write_video


def make_evaluation(truth, predictions, classes=3, folds=None, **changes):
    """Make an evaluation whose predicted labels have scores of 0.6, and the others equal shares of the rest."""
    labels = tuple("abcdefgh"[:classes])
    scores = np.full((len(truth), classes), 0.4 / (classes - 1), np.float32)
    scores[np.arange(len(truth)), predictions] = 0.6
    entries = tuple(Entry(Path(f"{i}.avi"), labels[t], fold=folds[i] if folds else None) for i, t in enumerate(truth))
    values = {
        "name": "one",
        "labels": labels,
        "entries": entries,
        "scores": scores,
        "seconds": np.full(len(truth), 0.01),
    }
    return Evaluation(**{**values, **changes})


def test_accuracy_is_counted():
    evaluation = make_evaluation([0, 0, 0, 1], [0, 0, 1, 1])
    assert evaluation.top1 == 0.75 and evaluation.top5 is None
    assert evaluation.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert evaluation.by_label() == {
        "a": {"clips": 3, "recall": 0.6667, "precision": 1.0},
        "b": {"clips": 1, "recall": 1.0, "precision": 0.5},
    }
    assert evaluation.milliseconds == {"p50": 10.0, "p95": 10.0}
    never = make_evaluation([0, 1], [1, 1]).by_label()
    assert never["a"] == {"clips": 1, "recall": 0.0, "precision": None}


def test_top5_needs_more_than_five_classes():
    scores = np.tile(np.linspace(0.4, 0.0, 8, dtype=np.float32), (3, 1))
    assert make_evaluation([0, 4, 5], [0, 0, 0], 8, scores=scores).top5 == pytest.approx(2 / 3)


def test_worst_first():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], np.float32)
    assert make_evaluation([0, 0, 0], [0, 0, 0], scores=scores).worst(2) == [1, 2]


def test_folds_and_merging():
    first = make_evaluation([0, 1], [0, 1], folds=[0, 0], skipped=(Skipped(Path("x"), "empty"),))
    second = make_evaluation([0, 1, 1, 1], [0, 1, 0, 0], folds=[1, 1, 1, 1])
    both = merge([first, second], "both")
    assert both.by_fold() == {0: 1.0, 1: 0.5} and both.top1 == pytest.approx(4 / 6)
    assert len(both.seconds) == 6 and len(both.skipped) == 1
    assert both.to_dict()["folds_mean"] == 0.75
    with pytest.raises(UsageError, match="different labels"):
        merge([first, make_evaluation([0], [0], 4)], "both")


def test_two_models_are_compared():
    first = make_evaluation([0, 1, 2, 2], [0, 1, 2, 0])
    second = make_evaluation([0, 1, 2, 2], [0, 2, 2, 1], name="two", seconds=np.full(4, 0.03))
    comparison = Comparison(first, second)
    assert comparison.agreement == 0.5 and comparison.drop == -25.0 and comparison.differing == [1, 3]
    assert comparison.speed is None, "they were not timed"
    values = comparison.to_dict()
    assert values["differing"][0] == {"path": "1.avi", "label": "b", "recognised": "b", "baseline": "c"}
    assert values["largest_score_difference"] == pytest.approx(0.4)
    assert values["speed"] is None and values["agreement_interval"] == [0.15, 0.85]


def test_the_interval_is_wilsons():
    """The values are worked out by hand: (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96."""
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(150, 180) == pytest.approx((0.7721, 0.8806), abs=1e-4)
    assert wilson(0, 5) == (0.0, pytest.approx(0.4345, abs=1e-4)) and wilson(5, 5)[1] == 1.0
    assert wilson(1, 1) == (pytest.approx(0.2065, abs=1e-4), 1.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_chance_and_the_most_frequent_label_stand_beside_the_accuracy():
    evaluation = make_evaluation([0, 1, 1, 1, 2, 2, 2], [0, 0, 1, 1, 2, 0, 0], classes=4)
    assert evaluation.chance == 0.25 and evaluation.majority == ("b", pytest.approx(3 / 7)), "of equals, the first"
    values = evaluation.to_dict()
    assert values["chance"] == 0.25 and values["majority"] == {"label": "b", "top1": 0.4286}
    assert values["top1_interval"] == [0.2505, 0.8418] and values["groups"] == 0
    entries = tuple(Entry(Path(f"{i}.avi"), "abc"[i % 3], group=f"scene {i // 2}") for i in range(6))
    assert make_evaluation([0, 1, 2] * 2, [0] * 6, entries=entries).groups == 3


def test_nothing_is_divided_by_no_videos():
    nothing = make_evaluation([], [], skipped=(Skipped(Path("x"), "empty"),))
    assert (nothing.top1, nothing.top5, nothing.majority, nothing.interval) == (0.0, None, None, (0.0, 1.0))
    assert nothing.by_label() == {} and nothing.worst(3) == [] and nothing.confused(3) == []
    assert "NaN" not in json.dumps([nothing.to_dict(), Comparison(nothing, nothing).to_dict()])
    assert make_evaluation([], [], 8).top5 == 0.0


def test_mistakes_and_the_classes_that_occur():
    evaluation = make_evaluation([0, 0, 0, 1, 1, 4, 4], [1, 1, 0, 2, 0, 4, 0], classes=8)
    assert evaluation.occurring() == [0, 1, 2, 4]
    assert evaluation.confused(2) == [("a", "b", 2, 3), ("b", "a", 1, 2)]
    assert len(evaluation.confused(99)) == 4
    assert evaluation.to_dict()["confusion"]["labels"] == list("abcdefgh")
    labels = tuple(f"class {i}" for i in range(400))
    entries = (Entry(Path("x.avi"), "class 7"), Entry(Path("y.avi"), "class 9"))
    scores = np.eye(400, dtype=np.float32)[[7, 300]]
    many = make_evaluation([0, 0], [0, 0], labels=labels, entries=entries, scores=scores).to_dict()["confusion"]
    assert many == {"labels": ["class 7", "class 9", "class 300"], "counts": [[1, 0, 0], [0, 0, 1], [0, 0, 0]]}


def test_speed_is_that_of_the_rounds():
    """What disturbs a round disturbs both models, so the ratio is taken in each round."""
    disturbed = np.array([1.0, 1.0, 5.0, 5.0, 1.0, 5.0, 1.0])
    first = make_evaluation([0], [0], timing=Timing(0.010 * disturbed, 0.02), facts={"threads": 2})
    second = make_evaluation([0], [0], timing=Timing(0.015 * disturbed, 0.02), facts={"threads": 2})
    speed = Comparison(first, second).speed
    assert speed.quartiles == pytest.approx((1.5, 1.5, 1.5)) and speed.claim == "1.50 times as fast"
    assert first.milliseconds == {"p50": 10.0, "p95": 50.0}
    values = Comparison(first, second).to_dict()
    assert values["speed"] == 1.5 and values["speed_measured"]["rounds"] == 7
    other = make_evaluation([0], [0], timing=second.timing, facts={"threads": 1})
    assert Comparison(first, other).speed.claim is None
    defaults = [dataclasses.replace(one, facts={"threads": None, "engine": "x"}) for one in (first, second)]
    assert Comparison(*defaults).speed.claim == "1.50 times as fast"
    foreign = dataclasses.replace(second, facts={"threads": None, "engine": "y"})
    assert "threads that may differ" in Comparison(defaults[0], foreign).speed.doubt


@pytest.fixture
def blind(tmp_path):
    """A bundle that recognises every video as steady."""
    return str(write_bundle(tmp_path / "blind", gain=0.0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bundle_is_measured_on_videos(bundle, damaged, workers):
    (evaluation,) = evaluate_bundles([str(bundle)], clipset.read(damaged), workers=workers)
    assert evaluation.top1 == 1.0 and len(evaluation.entries) == 9 and len(evaluation.skipped) == 4
    values = evaluation.to_dict()
    assert values["engine"] == "brightness" and values["bytes"] > 0 and values["by_label"]["steady"]["clips"] == 3
    assert values["confusion"] == {"labels": list(LABELS), "counts": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]}


def test_scores_are_the_mean_over_the_clips(bundle, clips_folder, monkeypatch):
    shapes = []
    run = BrightnessEngine.run

    def recording_run(self, video):
        shapes.append(video.shape)
        return run(self, video)

    monkeypatch.setattr(BrightnessEngine, "run", recording_run)
    (evaluation,) = evaluate_bundles([str(bundle)], clipset.read(clips_folder), Sampling("dense", 3), workers=0)
    assert len(shapes) == len(evaluation.seconds) == 27 and shapes[0][0] == 1
    assert np.allclose(evaluation.scores.sum(1), 1)


def test_bundles_are_compared_on_the_same_clips(bundle, blind, clips_folder):
    comparison = Comparison(*evaluate_bundles([blind, str(bundle)], clipset.read(clips_folder), workers=0))
    assert comparison.subject.top1 == pytest.approx(1 / 3) and comparison.drop == pytest.approx(200 / 3)
    assert comparison.agreement == pytest.approx(1 / 3) and len(comparison.differing) == 6


def test_models_are_timed_in_turns_when_the_decoding_is_over(bundle, blind, clips_folder, monkeypatch):
    runs = []
    run = BrightnessEngine.run
    monkeypatch.setattr(BrightnessEngine, "run", lambda self, video: (runs.append(self.gain), run(self, video))[1])
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)
    first, second = evaluate_bundles([str(bundle), blind], clipset.read(clips_folder), workers=0, threads=1, rounds=3)
    assert runs == [5.0, 0.0] * 9 + [5.0, 0.0] + [5.0, 0.0, 0.0, 5.0, 5.0, 0.0]
    assert len(first.timing.seconds) == len(second.timing.seconds) == 3 and first.facts["threads"] == 1
    assert first.facts["sha256"] == hashlib.sha256((bundle / "model.json").read_bytes()).hexdigest()
    (untimed,) = evaluate_bundles([str(bundle)], clipset.read(clips_folder), workers=0)
    assert untimed.timing is None


def test_a_stand_in_is_not_timed(bundle, clips_folder):
    with load(bundle) as recognizer:
        subject = dataclasses.replace(Subject.of(recognizer), can_be_timed=False)
        (evaluation,) = evaluate([subject], clipset.read(clips_folder), workers=0, rounds=3)
    assert evaluation.timing is None


def test_videos_without_labels_tell_how_far_two_models_agree(bundle, blind, clips_folder):
    clips = clipset.from_paths(sorted(clips_folder.rglob("*.avi")))
    first, second = evaluate_bundles([blind, str(bundle)], clips, workers=0)
    assert not first.labelled and Comparison(first, second).agreement == pytest.approx(1 / 3)
    values = {**first.to_dict(), "compare": Comparison(first, second).to_dict()}
    for name in ("top1", "top5", "by_label", "drop_points", "chance"):
        assert name not in values and name not in values["compare"]
    assert values["labelled"] is False and values["compare"]["differing"][0]["label"] is None


def test_bundles_that_take_different_clips(bundle, tmp_path, clips_folder):
    from vmp_edge.preprocessing import Preprocessing

    model = {"num_classes": 3, "num_frames": 8, "image_size": 24}
    other = write_bundle(tmp_path / "other", make_manifest(model=model, frames=8, preprocessing=Preprocessing(24)))
    first, second = evaluate_bundles([str(bundle), str(other)], clipset.read(clips_folder), workers=0)
    assert first.top1 == second.top1 == 1.0


def test_each_fold_goes_to_its_bundle(blind, bundle, tmp_path, clips_folder):
    """Fold 0's bundle recognises nothing, the others recognise everything."""
    clips = clipset.read(clips_folder).split(3)
    for fold in (1, 2):
        write_bundle(tmp_path / f"fold-{fold}")
    Path(blind).rename(tmp_path / "fold-0")
    (evaluation,) = evaluate_bundles([str(tmp_path / "fold-{fold}")], clips, workers=0)
    assert evaluation.by_fold() == {0: pytest.approx(1 / 3), 1: 1.0, 2: 1.0}
    with pytest.raises(UsageError, match="column `fold`"):
        evaluate_bundles([str(tmp_path / "fold-{fold}")], clipset.read(clips_folder), workers=0)


def test_what_cannot_be_measured(bundle, tmp_path, clips_folder):
    (clips_folder / "sideways").mkdir()
    (clips_folder / "sideways" / "a.avi").write_bytes(b"")
    with pytest.raises(UsageError, match="does not know the label sideways"):
        evaluate_bundles([str(bundle)], clipset.read(clips_folder))
    with pytest.raises(UsageError, match="without a label"):
        evaluate_bundles([str(bundle)], clipset.from_paths(["a.avi"]))
    nothing = ClipSet("nothing", (Entry(tmp_path / "none.avi", "steady"),))
    with pytest.raises(
        NoUsableVideoError, match=r"nothing has no videos that can be used \(1 cannot be used: none.avi"
    ) as e:
        evaluate_bundles([str(bundle)], nothing, workers=0)
    assert e.value.evaluations[0].labels == LABELS and e.value.evaluations[0].skipped[0].path.name == "none.avi"
    labels = write_bundle(tmp_path / "labels", make_manifest(labels=("a", "b", "steady")))
    with pytest.raises(UsageError, match="different labels"):
        evaluate_bundles([str(bundle), str(labels)], nothing, workers=0)
    with pytest.raises(BundleError, match="does not exist"):
        evaluate_bundles([str(tmp_path / "none")], nothing, workers=0)


def test_both_ways_to_see_a_video_are_measured(tmp_path):
    """Videos that become brighter by and by, with a fast flicker: neighbouring frames tell something else."""
    flicker = np.array([0, 30, 60, 90] * 15)
    for name, frames in (("a", 60), ("b", 60), ("c", 24)):
        slope = np.linspace(0, 60, frames)
        write_video(tmp_path / "clips" / "brighter" / f"{name}.avi", 60 + slope - flicker[:frames] * 0.6)
    path = write_bundle(tmp_path / "b", make_manifest(frame_rate=30.0))
    clips = clipset.read(str(tmp_path / "clips"))
    (found,) = evaluate_bundles([str(path)], clips, workers=0, stream=True)
    assert found.stream is not None and found.stream.stream is None
    assert len(found.entries) == len(found.stream.entries) == 3
    assert found.top1 == 1.0 and found.stream.top1 < 1.0
    assert found.stream.interval == wilson(int(found.stream.correct.sum()), 3)
    assert found.to_dict()["stream"]["top1"] == round(found.stream.top1, 4)
    (dense,) = evaluate_bundles([str(path)], clips, Sampling("dense"), workers=0)
    np.testing.assert_array_equal(dense.scores, found.stream.scores)
    assert dense.stream is None and "stream" not in dense.to_dict()
    spread = write_bundle(tmp_path / "spread", make_manifest(span=2.0))
    (found,) = evaluate_bundles([str(spread)], clips, workers=0, stream=True)
    assert [video.path.name for video in found.stream.skipped] == ["c.avi"] and len(found.stream.entries) == 2
    both = merge([found, found], "both")
    assert both.stream is not None and len(both.stream.entries) == 4 and len(both.stream.skipped) == 2


def test_crops_are_for_models_whose_frames_are_cropped(tmp_path, clips_folder):
    clips = clipset.read(str(clips_folder))
    stretched = str(write_bundle(tmp_path / "stretched"))
    with pytest.raises(UsageError, match="resizes its frames by stretch, so there is 1 crop, not 3"):
        evaluate_bundles([stretched], clips, Sampling("published", 4, 3), workers=0)
    manifest = make_manifest(preprocessing=Preprocessing(16, "crop"))
    (found,) = evaluate_bundles(
        [str(write_bundle(tmp_path / "cropped", manifest))], clips, Sampling("published", 4, 3), workers=0
    )
    assert len(found.seconds) == 12 * len(clips) and found.top1 == 1.0
