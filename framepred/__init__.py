"""Video frame prediction on Moving MNIST: the data, three networks, their measures. See the book for the story.

The public names stand in `__init__.pyi`. Each is imported when it is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
