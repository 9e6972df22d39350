"""Loading the cheaper variants in a bundle that a governor chooses among."""

from __future__ import annotations

import contextlib

from ..recognizer import Recognizer, load
from .governor import worthwhile
from .options import StreamOptions


def load_variants(
    recognizer: Recognizer, options: StreamOptions, threads: int | None, stack: contextlib.ExitStack
) -> dict[str, Recognizer]:
    """Load the variants that are worth their cost, by name from the dearest to the cheapest.

    Args:
        recognizer: The recogniser of the bundle that has the variants.
        options: The stream's options. Without a budget there is no governor, and no variant is loaded.
        threads: Number of threads for each engine. None takes the bundle's.
        stack: Closes the variants when it ends.

    Raises:
        BundleError: A variant cannot be loaded.
    """
    if options.budget is None:
        return {}
    paths = recognizer.bundle.variants
    return {name: stack.enter_context(load(paths[name], threads)) for name in worthwhile(recognizer.manifest.variants)}
