"""AudioSR (Liu et al. 2023, arXiv 2309.07314): latent diffusion that draws the upper band of audio that lacks it."""
