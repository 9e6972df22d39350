"""`vmp-edge info` prints the manifest."""

import yaml
from commands import last_json, run


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
