"""Run folders: what one training leaves behind, how a network is loaded from it, and the runs that come with the book."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
