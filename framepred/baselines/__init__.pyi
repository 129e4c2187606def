from . import fitted as fitted, oracle as oracle
from .fitted import CalibratedCopy as CalibratedCopy, ConstantVelocity as ConstantVelocity, MeanImage as MeanImage
from .oracle import Oracle as Oracle
