"""What every source of clouds shares: points made level, thinned to the number that is trained on, kept on disk.

A folder of clouds holds one PLACE.npy a place: float32 (1024, 3), metres east, north, up about the place where the
source knows them (a surface model, pictures with positions), else level but of unknown heading and scale.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onboard.errors import PilotageError

POINTS = 1024  # GeoLink 4.1
FEW = "give more pictures that overlap, or larger ones"  # the remedy where too little was reconstructed
_FAR = 6.0  # a point farther from the middle than so many median distances was triangulated wrongly


class CloudError(PilotageError):
    """A point cloud that cannot be made or read."""


def thinned(points: np.ndarray, rng: np.random.Generator, count: int = POINTS) -> np.ndarray:
    """(count, 3) float32 of (N, 3): what is not finite or far off is left out, then points are drawn by chance, none
    twice. Raises CloudError where fewer are left than wanted."""
    points = points[np.isfinite(points).all(axis=1)]
    if len(points):
        away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
        points = points[away <= _FAR * max(float(np.median(away)), 1e-9)]
    if len(points) < count:
        raise CloudError("cloud", f"{len(points)} points", f"{count} or more", FEW)
    return points[rng.choice(len(points), count, replace=False)].astype(np.float32)


def levelled(points: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Points (N, 3) of an unknown frame turned so that the plane that fits them best is level and the cameras (M, 3)
    are above it; from the points' mean. The heading stays unknown."""
    middle = points.mean(axis=0)
    axes = np.linalg.svd(points - middle, full_matrices=False)[2]  # rows: widest, next, the plane's normal
    if (cameras.mean(axis=0) - middle) @ axes[2] < 0:
        axes[2] = -axes[2]
    axes[1] = np.cross(axes[2], axes[0])
    return (points - middle) @ axes.T


def laid_on(points: np.ndarray, cameras: np.ndarray, positions_enu_m: np.ndarray) -> np.ndarray:
    """Points (N, 3) moved, turned and scaled by what leads from the cameras (M, 3) to their known positions (M, 3)
    with least squares (Umeyama 1991). Raises CloudError where the positions lie on a line: the turn is open then."""
    if len(cameras) < 3:
        raise CloudError("positions of cameras", len(cameras), "three or more")
    own, known = cameras.mean(axis=0), positions_enu_m.mean(axis=0)
    u, strength, v = np.linalg.svd((positions_enu_m - known).T @ (cameras - own))
    if strength[1] < 1e-6 * strength[0]:
        raise CloudError("positions of cameras", "all on one line", "a flight that turns")
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    rotation = (u * sign) @ v
    scale = float((strength * sign).sum() / ((cameras - own) ** 2).sum())
    return scale * (points - own) @ rotation.T + known


def write_cloud(folder: Path, place: str, cloud: np.ndarray) -> Path:
    """PLACE.npy, written beside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{place}.npy"
    beside = folder / f"{place}.partial"
    with beside.open("wb") as file:
        np.save(file, cloud.astype(np.float32))
    beside.replace(path)
    return path


def read_clouds(folder: Path) -> dict[str, np.ndarray]:
    """All clouds of a folder by their place. Raises CloudError where there is none, or one of another shape."""
    if not folder.is_dir() or not (paths := sorted(folder.glob("*.npy"))):
        raise CloudError("no clouds", folder, "PLACE.npy in it", "make them with: pilotage train clouds")
    clouds = {}
    for path in paths:
        try:
            cloud = np.load(path)
        except (OSError, ValueError) as error:
            raise CloudError("cloud", f"{path} ({error})", "an array", "remove the file and make it again") from error
        if cloud.shape != (POINTS, 3) or not np.isfinite(cloud).all():
            raise CloudError("cloud", f"{path} {cloud.shape}", f"({POINTS}, 3), finite", "make it again")
        clouds[path.stem] = cloud.astype(np.float32)
    return clouds
