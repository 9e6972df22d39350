import pytest
import torch
from small_models import VARIANTS, make_model


@pytest.fixture
def make():
    """`make_model`, for tests that choose its options."""
    return make_model


@pytest.fixture(params=VARIANTS)
def model(request):
    """One model of each option that changes the graph."""
    return make_model(**VARIANTS[request.param])


@pytest.fixture
def checkpoint(tmp_path):
    """A file with the weights and options of a small model of our own."""
    made = make_model()
    path = tmp_path / "small.pth"
    torch.save({"model": made.state_dict(), "options": vars(made.options)}, path)
    return path
