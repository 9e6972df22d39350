"""`vmp-edge verify` finds damaged files and other outputs."""

import pytest
import yaml
from bundles import write_bundle
from commands import last_json, run


def test_verify_repeats_the_recorded_output(capsys, bundle):
    code, out, _ = run(capsys, "verify", bundle, "--json")
    result = last_json(out)
    assert code == 0 and result["compared"] and result["max_difference"] <= 1e-6
    assert "is whole" in run(capsys, "verify", bundle)[1][0]


def test_verify_without_a_record_says_so(capsys, tmp_path):
    code, out, _ = run(capsys, "verify", write_bundle(tmp_path / "b"))
    assert code == 0 and "no recorded output" in out[0]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"seed": 7, "logits": [0.0, 0.0, 1.0]}, "another output"),
        ({"seed": 7, "logits": [0.0, float("nan"), 0.5]}, "wrong parity.check"),
        ({"seed": 7, "logits": [0.0]}, "wrong parity.check"),
        ({"seed": "x", "logits": [0.0, 0.0, 0.5]}, "wrong parity.check"),
        ({"logits": [0.0, 0.0, 0.5]}, "wrong parity.check"),
        ({"seed": 7}, "wrong parity.check"),
        ({"seed": -1, "logits": [0.0, 0.0, 0.5]}, "wrong parity.check"),
        ({"seed": 1 << 32, "logits": [0.0, 0.0, 0.5]}, "wrong parity.check"),
        ({"seed": True, "logits": [0.0, 0.0, 0.5]}, "wrong parity.check"),
        ({"seed": 7, "logits": [0.0, [0.0], 0.5]}, "wrong parity.check"),
        ({"seed": 7, "logits": [0.0, 0.0, 0.5], "tolerance": "wide"}, "wrong parity.check"),
        (["seed"], "wrong parity.check"),
    ],
)
def test_verify_fails_on_another_output(capsys, bundle, check, message):
    manifest = yaml.safe_load((bundle / "manifest.yaml").read_text())
    manifest["parity"]["check"] = check
    (bundle / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    code, _, err = run(capsys, "verify", bundle)
    assert code == 1 and message in err[-1]


def test_verify_fails_on_a_damaged_file(capsys, bundle):
    (bundle / "model.json").write_bytes(b"{}")
    code, _, err = run(capsys, "verify", bundle)
    assert code == 1 and "copy the bundle again" in err[-1]
