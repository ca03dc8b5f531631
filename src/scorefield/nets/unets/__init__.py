"""U-Nets for signals (C, L) and images (C, H, W) with any number of channels and any size, square or not.

Let h be the features and e = W_2 act(W_1 f(c)) the noise-level embedding, where f(c) is [sin 2 pi c w, cos 2 pi c w]
with random frequencies w, or sinusoids of fixed frequencies. A residual block is

    h <- (shortcut(h) + conv(dropout(act(norm(conv(act(norm(h))) + W act(e)))))) / sqrt(2).

The U-Net runs blocks down through n levels, each half the size of the one before, stores every h, and runs blocks back
up on the concatenation [h, stored h]. Each spatial size must be a multiple of 2^(n - 1), `net.multiple`; the
parametrised score pads its input and crops the output. A level has attention where its largest spatial size, counted on
the padded data, is among `attention_sizes`; the positions are flattened and attend with one head. Class and vector
conditions are added to e, images to the input channels.

    module         contents
    blocks         the residual block, and a block followed by attention
    resampling     halving and doubling of the size, by FIR low-pass filters, means and repetition
    ncsnpp         NCSNpp and UNet: every choice of Song et al. 2021, appendix H; NCSN++ and DDPM++ are two settings
    ddpm           DDPM: the settings of Ho et al. 2020
    acsm_unet      ACSMUNet: the unconditional U-Net of Jolicoeur-Martineau et al. 2021
    release_order  the parameters in the order and under the names of the releases: load_published, published_order
"""

from scorefield.nets.unets import acsm_unet, blocks, ddpm, ncsnpp, release_order, resampling
from scorefield.nets.unets.acsm_unet import ACSMUNet
from scorefield.nets.unets.ddpm import DDPM
from scorefield.nets.unets.ncsnpp import NCSNpp, UNet
from scorefield.nets.unets.release_order import load_published, published_order

__all__ = [
    "ACSMUNet",
    "DDPM",
    "NCSNpp",
    "UNet",
    "acsm_unet",
    "blocks",
    "ddpm",
    "load_published",
    "ncsnpp",
    "published_order",
    "release_order",
    "resampling",
]
