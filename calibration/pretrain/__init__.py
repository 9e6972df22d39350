"""Pre-train a model on videos without labels, by the features of a frozen teacher.

``flow`` is the flow of `vmp-edge pretrain`. ``alignment`` is what is learnt, from ``teachers``, one of which is
``efficientnet``. ``masks`` hides patches, and ``pieces`` decodes videos.
"""
