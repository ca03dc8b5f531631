"""Files of the SDE framework's release, written for tests: small networks with random weights, and configurations."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data_spec import DataSpec
from scorefield.nets import Network, NetworkConfig, published_order

GOLDEN = Path(__file__).parents[1] / "golden" / "score_sde"

PUBLISHED: dict[str, Any] = json.loads((GOLDEN / "ncsnpp_ve_continuous" / "config.json").read_text())
"""The configuration of the published ve/cifar10_ncsnpp_continuous, but for its sizes."""


def configured(**changes: Any) -> dict[str, Any]:
    """`PUBLISHED` with other entries, written section__field=value."""
    config = copy.deepcopy(PUBLISHED)
    for path, value in changes.items():
        section, _, name = path.partition("__")
        config[section][name] = value
    return config


def published_state(net: Network) -> dict[str, Tensor]:
    """The network's parameters as a release's state dictionary keeps them."""
    return {
        p.release: (p.parameter.T if p.transposed else p.parameter).detach().contiguous() for p in published_order(net)
    }


def table(config: dict[str, Any]) -> Tensor:
    """The release's noise levels, most noise first."""
    model = config["model"]
    ends = torch.tensor([model["sigma_max"], model["sigma_min"]], dtype=torch.float64).log()
    return torch.linspace(float(ends[0]), float(ends[1]), model["num_scales"], dtype=torch.float64).exp()


def made(network: NetworkConfig, size: int, colours: int = 3) -> Network:
    """With every parameter random, so that none may be exchanged unnoticed."""
    torch.manual_seed(7)
    net = network.build(DataSpec((colours, size, size), 0, 255, 256))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.1 * torch.randn(p.shape))
    return net.eval()


def release_file(state: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of the PyTorch release; its average is the state itself, the weights of its model are others."""
    trained = [name for name in state if not name.endswith("all_modules.0.W")]
    model = {name: value if name not in trained else value + 1.0 for name, value in state.items()}
    return {
        "optimizer": {"state": {}, "param_groups": []},
        "model": {"module.sigmas": table(config)} | {f"module.{name}": value for name, value in model.items()},
        "ema": {"decay": 0.999, "num_updates": 5, "shadow_params": [state[name] for name in trained]},
        "step": 77,
    }


def written(folder: Path, content: Any, config: dict[str, Any] | None = None) -> tuple[Path, Path | None]:
    """A checkpoint and its configuration, as files."""
    torch.save(content, folder / "checkpoint.pth")
    if config is None:
        return folder / "checkpoint.pth", None
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "checkpoint.pth", folder / "config.json"
