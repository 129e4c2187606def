from . import (
    download as download,
    glyphs as glyphs,
    moving as moving,
    rendering as rendering,
    streams as streams,
    test_sets as test_sets,
)
from .glyphs import GlyphSet as GlyphSet, load_digits as load_digits
from .moving import Clips as Clips, MovingDigits as MovingDigits
from .test_sets import OriginalTestFile as OriginalTestFile, TestSet as TestSet, test_set as test_set
