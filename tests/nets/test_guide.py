"""The small guidance networks: any shape, one row per example, dependence on the noise level, refusals."""

from __future__ import annotations

import pytest
import torch

from scorefield._codec import dumps, loads
from scorefield.data_spec import ConditionSpec, DataSpec
from scorefield.nets import GuideConfig, GuideConvolutions, GuideMLP
from tolerance import FLOAT32_NETWORK, FLOAT64_NETWORK

CASES: dict[str, tuple[GuideConfig, DataSpec]] = {
    "vector": (GuideMLP(16, 1, 4), DataSpec((3,))),
    "image, flattened": (GuideMLP(16, 2, 4), DataSpec((2, 3, 5))),
    "image": (GuideConvolutions(8, 16, 4), DataSpec((3, 7, 18))),
    "signal": (GuideConvolutions(8, 16, 4), DataSpec((2, 37))),
    "one position": (GuideConvolutions(12, 12, 4), DataSpec((1, 1, 1))),
}


@pytest.mark.parametrize("name", CASES)
def test_one_row_for_each_example(name: str) -> None:
    config, data = CASES[name]
    torch.manual_seed(0)
    net = config.build(data, 5).double().eval()
    x = torch.randn(3, *data.shape, dtype=torch.float64)
    c = torch.tensor([-9.0, 0.3, 4.0], dtype=torch.float64)
    with torch.no_grad():
        whole = net(x, c)
        alone = torch.cat([net(x[i : i + 1], c[i : i + 1]) for i in range(3)])
        assert whole.shape == (3, 5) and (alone - whole).abs().max() <= FLOAT64_NETWORK * whole.abs().max()
        assert ((net(x, c + 0.5) - whole).abs().amax(1) > FLOAT32_NETWORK).all()  # the noise level is heard
        # At large noise x is large too, and what the network makes of it stays of order one.
        loud = net(1e4 * x, c.new_full((3,), 9.2))
        assert loud.abs().max() < 10 * whole.abs().max()
        single = net.float()(x.float(), c.float())
    assert (single - whole).abs().max() <= FLOAT32_NETWORK * whole.abs().max()
    assert loads(dumps(config), GuideConfig) == config


@pytest.mark.parametrize("name", CASES)
def test_every_weight_is_trained_and_conditions_play_no_role(name: str) -> None:
    config, data = CASES[name]
    torch.manual_seed(0)
    net = config.build(data, 5)
    net(torch.randn(2, *data.shape), torch.zeros(2)).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
    label = (ConditionSpec("class", "class", 5),)
    torch.manual_seed(0)
    told = config.build(DataSpec(data.shape, conditions=label), 5)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), told.parameters(), strict=True))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"and images \(C, H, W\); got data of shape \(2,\). GuideMLP"):
        GuideConvolutions().build(DataSpec((2,)), 3)
    with pytest.raises(ValueError, match="one output or more; got outputs=0"):
        GuideMLP().build(DataSpec((2,)), 0)
    with pytest.raises(ValueError, match="must be positive; got 0"):
        GuideMLP(width=0)
    with pytest.raises(ValueError, match="width, most and embedding_size must be positive; got 8, 0 and 16"):
        GuideConvolutions(8, 0)
    with pytest.raises(ValueError, match="dropout is a probability"):
        GuideConvolutions(dropout=1.0)
    net = GuideMLP(8, 1).build(DataSpec((2,)), 3)
    with pytest.raises(ValueError, match=r"of shape \(2,\); got a batch of shape \(4, 3\)"):
        net(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ValueError, match=r"c must have shape \(4,\)"):
        net(torch.zeros(4, 2), torch.zeros(3))
