"""What a prediction is worth without a trained network: mean image, copy, constant velocity, and the oracle.

Each is a `FramePredictor`, so that `evaluate`, players and reports take it like a network. None is trained by gradient:
`fit` counts in training clips.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
