"""What the tests of heavy toolchains share."""

import pytest
import torch

from vmp_edge.models import ModelOptions, VideoMamba


@pytest.fixture
def checkpoint(request, tmp_path):
    """A checkpoint of a random model of the module's options ``SMALL``."""
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**request.module.SMALL))
    path = tmp_path / "small.pth"
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, path)
    return path
