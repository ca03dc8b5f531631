"""What a score is good for besides sampling.

The probability flow dx/dt = f x - g^2 score / 2 carries p_t along, so it is an invertible map between data and latents, and

    log p_0(x) = log p_1(x_1) + int_0^1 div(f x_t - g^2 score(x_t, t) / 2) dt

is the density it assigns to x.

    flow         the flow as a map, and its density in model units
    likelihood   log densities in data units, bits per dimension
"""

from scorefield.inference import flow, likelihood
from scorefield.inference.flow import FlowSettings
from scorefield.inference.likelihood import LogProb, flow_log_prob

__all__ = ["FlowSettings", "LogProb", "flow", "flow_log_prob", "likelihood"]
