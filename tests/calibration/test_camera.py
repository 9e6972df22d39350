"""Test what the labels mean by measuring motion in the drawn pictures."""

import itertools

import cv2
import numpy as np
import pytest

from vmp_edge.calibration.egomotion import textures
from vmp_edge.calibration.egomotion.camera import DIRECTIONS, LABELS, SPEEDS, homographies, sample_path
from vmp_edge.calibration.egomotion.clips import Layer, generate_clip, layer_maps, render

SEEDS = range(6)


def plain_clip(label, seed):
    """A clip of one far scene without objects or faults, so that the picture's motion can be measured."""
    rng = np.random.default_rng([99, seed])
    path = sample_path(label, rng)
    scene = [Layer(textures.noise(320, rng), None, 1.0, 112.0)]
    return render(path, scene, [], np.random.default_rng(1), 8, 112)


def picture_motion(clip):
    """Measure the scene's motion between frames: to the right, down, growth, and clockwise turn as seen."""
    motions = []
    for before, after in itertools.pairwise(clip):
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
        points = cv2.goodFeaturesToTrack(grey[0], 200, 0.01, 5)
        ends, status, _ = cv2.calcOpticalFlowPyrLK(*grey, points, None, winSize=(21, 21), maxLevel=3)
        keep = status.ravel() == 1
        middle = (clip.shape[1] - 1) / 2
        fit, _ = cv2.estimateAffinePartial2D(points[keep] - middle, ends[keep] - middle, ransacReprojThreshold=1.0)
        growth, turn = np.log(np.hypot(fit[0, 0], fit[1, 0])), np.arctan2(fit[1, 0], fit[0, 0])
        motions.append([fit[0, 2] / 112, fit[1, 2] / 112, growth, turn])
    return np.array(motions)


# by label: (component of the picture's motion, sign); y is down, and turns are clockwise as seen
TRUTH = {
    "pan-left": (0, 1),
    "pan-right": (0, -1),
    "tilt-up": (1, 1),
    "tilt-down": (1, -1),
    "zoom-in": (2, 1),
    "zoom-out": (2, -1),
    "roll-clockwise": (3, -1),
    "roll-counter-clockwise": (3, 1),
}


def test_labels_are_in_the_published_order():
    assert LABELS == (
        "still", "pan-left", "pan-right", "tilt-up", "tilt-down", "zoom-in", "zoom-out",
        "roll-clockwise", "roll-counter-clockwise", "shake",
    )  # fmt: skip


@pytest.mark.parametrize("label", TRUTH)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_picture_moves_against_the_camera(label, seed):
    motion = np.median(picture_motion(plain_clip(label, seed)), axis=0)
    component, sign = TRUTH[label]
    slowest = SPEEDS[DIRECTIONS[label][0]][0]
    assert sign * motion[component] > 0.5 * slowest
    weights = np.array([1, 1, 0.5, 0.5])
    if component < 2:  # zoom and roll around a point off the middle move the middle as well
        assert np.argmax(np.abs(motion) * weights) == component


@pytest.mark.parametrize("seed", SEEDS)
def test_still_stays_and_shake_goes_nowhere(seed):
    still, shake = (picture_motion(plain_clip(label, seed)) for label in ("still", "shake"))
    assert np.abs(still.mean(0)[:2]).max() < 0.003
    assert np.abs(shake).sum() > 3 * np.abs(still).sum()
    steps = np.abs(shake[:, :2]).sum(1).mean()
    assert np.abs(shake.mean(0)[:2]).max() < max(0.75 * steps, 0.01)


def test_homography_fixes_the_picture_at_rest():
    assert np.allclose(homographies(np.zeros((1, 4)), 0.7), np.eye(3))


def test_turning_by_half_the_view_brings_the_border_to_the_middle():
    fov = 0.9
    focal = 0.5 / np.tan(fov / 2)
    to_scene = homographies(np.array([[fov / 2 * focal, 0, 0, 0]]), fov)[0]
    x, y, w = to_scene @ [0, 0, 1]
    assert np.allclose([x / w, y / w], [0.5, 0])


def test_nearer_layers_move_faster():
    path = sample_path("pan-right", np.random.default_rng(0))
    image = np.zeros((320, 320, 3), np.uint8)
    times = np.array([0.0, 7.0])
    far, near = (layer_maps(path, Layer(image, None, gain, 112.0), times, 112) for gain in (1.0, 1.5))
    moved = [
        (m[1] @ [56, 56, 1] / (m[1] @ [56, 56, 1])[2] - m[0] @ [56, 56, 1] / (m[0] @ [56, 56, 1])[2])[0]
        for m in (far, near)
    ]
    assert 1.3 * moved[0] < moved[1]


def test_clips_are_deterministic_and_differ_by_seed():
    first, again, other = (generate_clip("pan-left", seed) for seed in ((0, 5), (0, 5), (0, 6)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("label", LABELS)
def test_clips_are_pictures(label):
    clip = generate_clip(label, (8, 1))
    assert clip.shape == (8, 112, 112, 3) and clip.dtype == np.uint8
    assert clip.std() > 3
    assert all(frame.max() > 20 for frame in clip)
