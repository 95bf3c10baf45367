"""Clouds from overlapping pictures by COLMAP (`pycolmap`), on the CPU.

pycolmap and OpenCV abort in one process: it runs in another, which is this file called as a program,

    python -m training.clouds.colmap WORK IMAGES

and hands back WORK/result.npz. Nothing imported here may import OpenCV.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from training.clouds.pictures import positions_of
from training.clouds.points import FEW, POINTS, CloudError, laid_on, levelled, thinned

_REMEDY = "pip install 'pilotage[clouds]' (there are no aarch64 wheels: a desktop's work)"
_LEAST_SEEN = 3  # pictures that a point must be seen in


def available() -> bool:
    """Whether pycolmap is installed; it is not imported."""
    return importlib.util.find_spec("pycolmap") is not None


def require() -> None:
    """Raises CloudError where pycolmap is not installed."""
    if not available():
        raise CloudError("pycolmap", "not installed", "the package", _REMEDY)


def cloud_of_pictures(pictures: list[Path], seed: int = 1, count: int = POINTS, limit_s: float = 1800.0) -> np.ndarray:
    """(count, 3) float32 from two or more pictures of one folder: east, north, up in metres where the folder has
    positions of three or more, else level and in COLMAP's own scale.

    Raises CloudError where pycolmap is missing, the pictures do not make one model, or too few points are left.
    """
    require()
    with tempfile.TemporaryDirectory() as work:
        points, cameras, names = _reconstruct(pictures, Path(work), limit_s)
    if len(points) < count:
        raise CloudError("cloud", f"{len(points)} points", f"{count} or more", FEW)
    known = positions_of(pictures)
    there = [i for i, name in enumerate(names) if name in known]
    if len(there) >= 3:
        points = laid_on(points, cameras[there], np.array([known[names[i]] for i in there]))
    else:
        points = levelled(points, cameras)
    return thinned(points, np.random.default_rng(seed), count)


def _reconstruct(pictures: list[Path], work: Path, limit_s: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Points (N, 3), camera centres (M, 3) and the names of their pictures, in COLMAP's frame."""
    folder = pictures[0].parent
    (work / "names.txt").write_text("\n".join(path.name for path in pictures))
    command = [sys.executable, "-m", "training.clouds.colmap", str(work), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise CloudError("COLMAP", f"no model of {folder} after {limit_s:g} s", "fewer pictures") from error
    if not (work / "result.npz").is_file():
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CloudError("COLMAP", f"no model of {folder} ({said})", "one of most pictures", FEW)
    with np.load(work / "result.npz") as result:
        return result["points"], result["cameras"], [str(name) for name in result["names"]]


def _main(work: Path, images: Path) -> None:
    """The other process: SIFT, all pairs matched, the largest model of the incremental mapper."""
    import pycolmap

    names = (work / "names.txt").read_text().splitlines()
    database, models = work / "database.db", work / "models"
    models.mkdir()
    pycolmap.set_random_seed(0)
    device = pycolmap.Device.cpu
    pycolmap.extract_features(
        database, images, image_names=names, camera_mode=pycolmap.CameraMode.SINGLE, device=device
    )
    pycolmap.match_exhaustive(database, device=device)
    found = pycolmap.incremental_mapping(database, images, models)
    if not found:
        raise SystemExit("no two pictures match")
    best = max(found.values(), key=lambda model: model.num_reg_images())
    points = [p.xyz for p in best.points3D.values() if p.track.length() >= _LEAST_SEEN]
    seen = [image for image in best.images.values() if image.has_pose]
    np.savez(
        work / "result.npz",
        points=np.array(points).reshape(-1, 3),
        cameras=np.array([image.projection_center() for image in seen]),
        names=np.array([image.name for image in seen]),
    )


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
