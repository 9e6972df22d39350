"""What the tests of bundles share."""

import pytest

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError


@pytest.fixture
def error_of():
    """A function that opens a bundle, which must fail, and returns the one line of the error."""

    def open_bundle(path):
        with pytest.raises(BundleError) as caught:
            Bundle.open(path)
        text = str(caught.value)
        assert "\n" not in text and str(path) in text
        return text

    return open_bundle
