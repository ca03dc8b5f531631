"""The RefineNets of NCSN and NCSNv2, for images (C, H, W).

A RefineNet is an encoder of residual blocks and a chain of refinement blocks (Lin et al. 2017). The encoder halves the
size once or a few times and then dilates its convolutions in place of further halving. Each refinement block joins the
features of one encoder stage with those of the coarser block before it. InstanceNorm++ normalises every channel of an
example by its own mean and variance and adds a term in the channel means, themselves normalised among the channels,
because the normalisation alone would remove them (Song and Ermon 2019, appendix A).

    module         contents
    instance_norm  InstanceNorm++ with and without noise levels, and its variants
    blocks         encoder blocks, refinement blocks, chained pooling, spectral normalisation
    refinenet      RefineNet, and its arrangements in four, five and six stages
    ncsn           NCSN: one set of normalisation parameters per noise level; the deeper variant and a single-level
                   baseline
    ncsnv2         NCSNv2: no noise conditioning, three depths; also the networks of adversarial score matching
"""

from scorefield.nets.refinenets import blocks, instance_norm, ncsn, ncsnv2, refinenet
from scorefield.nets.refinenets.ncsn import NCSN
from scorefield.nets.refinenets.ncsnv2 import NCSNv2
from scorefield.nets.refinenets.refinenet import RefineNet

__all__ = ["NCSN", "NCSNv2", "RefineNet", "blocks", "instance_norm", "ncsn", "ncsnv2", "refinenet"]
