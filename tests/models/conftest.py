"""What tests of checkpoints share."""

import pytest
import torch


@pytest.fixture
def save(tmp_path):
    def write(content, **options):
        torch.save(content, tmp_path / "some.pth", **options)
        return tmp_path / "some.pth"

    return write
