"""What errors say: intervals and comparisons, what makes a clip hard, drift and blur, recognition, figures, reports."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
