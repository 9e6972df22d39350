"""`vmp-edge info` prints the manifest."""

import pytest
import yaml
from bundles import make_manifest, write_bundle
from commands import last_json, run

from vmp_edge.recognizer import load
from vmp_edge.stream import Stream


def test_info(capsys, bundle):
    code, out, _ = run(capsys, "info", bundle)
    text = "\n".join(out)
    assert code == 0
    assert all(word in text for word in ("brightness", "4 frames of 16x16", "brighter, darker, steady", "model.json"))
    code, out, _ = run(capsys, "info", bundle, "--json")
    manifest = last_json(out)
    assert manifest["labels"] == ["brighter", "darker", "steady"] and manifest["path"] == str(bundle)
    written = yaml.safe_load((bundle / "manifest.yaml").read_text())
    assert {key: manifest[key] for key in written} == written


@pytest.mark.parametrize(
    ("sampling", "words", "reach", "slots"),
    [
        ({"span": 10.0}, "4 frames of 16x16, spread over 10 seconds", 7.5, 11),
        ({"frame_rate": 10.0}, "4 frames of 16x16, spaced 10 to the second", 0.3, 20),
        ({}, "4 frames of 16x16", None, 9),
    ],
)
def test_info_says_what_a_window_reaches_over_and_what_it_costs(capsys, tmp_path, sampling, words, reach, slots):
    path = write_bundle(tmp_path / "b", make_manifest(**sampling))
    window = last_json(run(capsys, "info", path, "--json")[1])["window"]
    assert window == {"reach_s": reach, "slots": slots, "ring_bytes": slots * 3 * 16 * 16 * 4}
    with load(path) as recognizer:
        assert Stream(recognizer).memory == window["ring_bytes"]
    text = "\n".join(run(capsys, "info", path)[1])
    begins = "neighbouring frames" if reach is None else f"reaches over {reach:g} s"
    assert words in text and f"{begins}; a stream keeps {slots} frames, " in text
