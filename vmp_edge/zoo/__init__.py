"""Published models: their facts, their label lists, and fetching their checkpoints from the Hugging Face hub.

Nothing here needs PyTorch. The facts lie in ``published.csv``, which holds one row for each file of VideoMamba's model
zoo (https://github.com/OpenGVLab/VideoMamba), and the label lists lie in ``labels/``.
"""

from __future__ import annotations

from .hub import Address, check, fetch
from .labels import LABEL_LISTS, read_list
from .published import Published, find, find_file, published

__all__ = ["LABEL_LISTS", "Address", "Published", "check", "fetch", "find", "find_file", "published", "read_list"]
