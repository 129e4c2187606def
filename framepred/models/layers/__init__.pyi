from . import convlstm_cell as convlstm_cell, masked as masked, warp as warp
