"""Analysis of a piece of audio: levels, loudness, spectrum, stereo, music, and the faults of generated songs.

The fault indices run from 0 (clean) to 1 (severe), do not depend on gain, and score released recordings at most 0.1.
"""

from outboard.audio.analysis.result import Analysis, BandLevel, StereoBand
from outboard.audio.analysis.song import analyze

__all__ = ["Analysis", "BandLevel", "StereoBand", "analyze"]
