"""The baseline of the whole-model benchmark does the same arithmetic as the model that it is compared with."""

import importlib.util
from pathlib import Path

import pytest
import torch

from vmp_edge.models import create

FILE = Path(__file__).parents[1] / "benchmarks" / "published.py"


@pytest.mark.parametrize("scan_input", ["projection", "conv"])
def test_published_arithmetic_equals_the_source_model(scan_input):
    spec = importlib.util.spec_from_file_location("published", FILE)
    published = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(published)
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}
    model = create("videomambapro-tiny", scan_input=scan_input, **sizes)
    for block in model.blocks():
        block.mixer.D.data += torch.randn_like(block.mixer.D)
    video = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(published.published_forward(model, video), model(video), atol=1e-5, rtol=1e-5)
