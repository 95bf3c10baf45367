"""Clouds from overlapping pictures by VGGT (Wang et al. 2025), as GeoLink makes them: an adapter to its own package.

Neither the package nor its weights come with this project, and nothing is fetched: both must lie on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.clouds.points import POINTS, CloudError, levelled, thinned

_WEIGHTS = ("model.safetensors", "model.pt")
_GET_WEIGHTS = "download facebook/VGGT-1B (5 GB, non-commercial) from huggingface.co, name its folder by --weights"
_GET_PACKAGE = "clone github.com/facebookresearch/vggt and pip install it"
_KEPT = 0.5  # of the points, those that the network is surest of


class Vggt:
    """The frozen network. `weights` is a folder with one of model.safetensors, model.pt.

    Raises CloudError, saying what to get, where the weights or the package are not there.
    """

    def __init__(self, weights: Path) -> None:
        path = next((weights / name for name in _WEIGHTS if (weights / name).is_file()), None)
        if path is None:
            raise CloudError("VGGT's weights", f"none in {weights}", " or ".join(_WEIGHTS), _GET_WEIGHTS)
        try:
            from vggt.models.vggt import VGGT
            from vggt.utils.load_fn import load_and_preprocess_images
        except ImportError as error:
            raise CloudError("VGGT's package", "not installed", "vggt", _GET_PACKAGE) from error
        import torch

        self._load = load_and_preprocess_images
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = VGGT()
        try:
            self._network.load_state_dict(_tensors(path))
        except (RuntimeError, ValueError, OSError) as error:
            raise CloudError("VGGT's weights", f"{path} ({error})"[:300], "those of VGGT-1B", _GET_WEIGHTS) from error
        self._network.to(self._device).eval()

    def cloud_of_pictures(self, pictures: list[Path], seed: int = 1, count: int = POINTS) -> np.ndarray:
        """(count, 3) float32, level and in the network's own scale. Raises CloudError where too few points are left."""
        import torch

        with torch.inference_mode():
            seen = self._network(self._load([str(path) for path in pictures]).to(self._device))
        points = seen["world_points"].float().reshape(-1, 3).cpu().numpy()
        sure = seen["world_points_conf"].float().reshape(-1).cpu().numpy()
        points = points[sure >= np.quantile(sure, 1 - _KEPT)]
        first_camera = np.zeros((1, 3))  # the network's frame is that of the first picture's camera
        rng = np.random.default_rng(seed)
        return thinned(levelled(thinned(points, rng, min(len(points), 20 * count)), first_camera), rng, count)


def _tensors(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)
