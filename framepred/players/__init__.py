"""Players: look at frames and flow, in a live notebook and in a page without kernel or network."""

from framepred.players.controls import explore
from framepred.players.flow_player import FlowPlayer
from framepred.players.frame_player import FramePlayer

__all__ = ["FlowPlayer", "FramePlayer", "explore"]
