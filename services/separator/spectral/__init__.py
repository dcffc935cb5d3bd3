"""The weights-free separation engine: cues measured in the spectrogram, fused into soft masks that sum to one."""
