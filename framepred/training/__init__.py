"""How a network is trained: what is asked for, a step, the loop around it, and what lets it go on after any stop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
