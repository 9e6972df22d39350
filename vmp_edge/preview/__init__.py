"""The web preview: what cameras see and what is recognised, as a page for devices without a screen.

Needs aiohttp, of the extra `serve`.
"""
