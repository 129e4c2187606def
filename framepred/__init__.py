"""Video frame prediction on Moving MNIST: the data, three networks, their measures. See the book for the story.

The public names stand in `__init__.pyi`. Each is imported when it is first asked for.
"""

from importlib.util import find_spec

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
# `import *` leaves the parts alone, of which some are called as others call their variables: data, models, runs.
__all__ = [name for name in _names if name == "baselines" or find_spec(f"framepred.{name}") is None]
