"""Test accuracy and agreement, on small cases counted by hand and with bundles on videos."""

from pathlib import Path

import numpy as np
import pytest
from brightness_engine import LABELS, BrightnessEngine
from bundles import make_manifest, write_bundle

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet, ClipSetError, Entry
from vmp_edge.calibration.decoding import Sampling, Skipped
from vmp_edge.calibration.measure import Comparison, Evaluation, evaluate_bundles, merge
from vmp_edge.errors import BundleError, UsageError


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
    assert comparison.speed == pytest.approx(3)
    values = comparison.to_dict()
    assert values["differing"][0] == {"path": "1.avi", "label": "b", "recognised": "b", "baseline": "c"}
    assert values["largest_score_difference"] == pytest.approx(0.4)


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
    with pytest.raises(ClipSetError, match=r"nothing has no videos that can be used \(1 cannot be used: none.avi"):
        evaluate_bundles([str(bundle)], nothing, workers=0)
    labels = write_bundle(tmp_path / "labels", make_manifest(labels=("a", "b", "steady")))
    with pytest.raises(UsageError, match="different labels"):
        evaluate_bundles([str(bundle), str(labels)], nothing, workers=0)
    with pytest.raises(BundleError, match="does not exist"):
        evaluate_bundles([str(tmp_path / "none")], nothing, workers=0)
