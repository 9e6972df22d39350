"""Fixtures of the operators' tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def few_threads():
    """Two threads, so that the kernels divide their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
