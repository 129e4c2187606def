"""Glyphs, the clips that they move in, and the fixed test sets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
