"""The web preview: a page that shows what cameras see and what is recognised, for devices without a screen.

It needs aiohttp, from the extra `serve`.
"""
