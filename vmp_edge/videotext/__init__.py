"""Features of texts by the text encoder of a video-text checkpoint, on the workstation.

A device needs none of this: it compares a video's feature with those of the texts, which lie in a gallery.
"""
