"""Clouds of places: on the surface that they are of, level, in metres, and plain words where one cannot be made."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from typer.testing import CliRunner

from onboard.errors import PilotageError
from training.clouds import colmap
from training.clouds.cli import app
from training.clouds.pictures import places_of, positions_of
from training.clouds.points import POINTS, CloudError, laid_on, levelled, read_clouds, thinned, write_cloud
from training.clouds.surface import cloud_of_geotiff, read_places, sample_surface


def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def plane(shape: tuple[int, int] = (200, 200), east: float = 0.1, north: float = -0.2) -> np.ndarray:
    """Heights of a slope at half a metre a pixel, the origin in the middle pixel."""
    row, col = np.mgrid[: shape[0], : shape[1]]
    return (300.0 + east * (col - 100) * 0.5 + north * (100 - row) * 0.5).astype(np.float32)


# ---- from a surface


def test_points_lie_on_the_surface_in_metres_east_north_and_up() -> None:
    cloud = sample_surface(plane(), 0.5, (100.0, 100.0), 60.0, rng())
    assert cloud.shape == (POINTS, 3)
    assert cloud.dtype == np.float32
    np.testing.assert_allclose(cloud[:, 2], 0.1 * cloud[:, 0] - 0.2 * cloud[:, 1], atol=0.05)
    assert np.abs(cloud[:, :2]).max() < 31.0
    assert np.ptp(cloud[:, 0]) > 55.0
    assert np.ptp(cloud[:, 1]) > 55.0


def test_the_centre_is_that_of_the_square_not_of_the_raster() -> None:
    cloud = sample_surface(plane(), 0.5, (40.5, 150.25), 30.0, rng())
    height = plane()[150, 40] + 0.1 * 0.25 + 0.2 * 0.125  # at the centre
    np.testing.assert_allclose(
        cloud[:, 2] + np.median(plane()[120:182, 10:72]), height + 0.1 * cloud[:, 0] - 0.2 * cloud[:, 1], atol=0.1
    )


def test_a_wall_gets_points_as_its_area_does() -> None:
    surface = np.zeros((200, 200), np.float32)
    surface[:, 100:] = 50.0  # a wall of 50 m, as large as half of the floor that is seen
    cloud = sample_surface(surface, 0.5, (99.5, 99.5), 50.0, rng())
    on_wall = ((cloud[:, 2] > -24.9) & (cloud[:, 2] < 24.9)).mean()
    assert on_wall == pytest.approx(0.5, abs=0.06)


def test_holes_have_no_points_and_too_many_of_them_are_refused() -> None:
    surface = plane()
    surface[:, :100] = np.nan
    cloud = sample_surface(surface, 0.5, (100.0, 100.0), 60.0, rng())
    assert np.isfinite(cloud).all()
    assert cloud[:, 0].min() >= 0.0
    with pytest.raises(CloudError, match="quarter of the square"):
        sample_surface(surface, 0.5, (40.0, 100.0), 30.0, rng())
    with pytest.raises(CloudError, match="quarter of the square"):
        sample_surface(surface, 0.5, (900.0, 100.0), 30.0, rng())


def write_dsm(path: Path) -> None:
    options = {"driver": "GTiff", "count": 1, "height": 200, "width": 200, "dtype": "float32"}
    transform = Affine(0.5, 0, 470_000.0, 0, -0.5, 5_200_100.0)  # the middle at 470050, 5200050
    with rasterio.open(path, "w", crs="EPSG:32631", transform=transform, **options) as file:
        file.write(plane(), 1)


def degrees(x: float, y: float) -> tuple[float, float]:
    from pyproj import Transformer

    return Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True).transform(x, y)


def test_a_geotiffs_cloud_is_the_squares_and_is_the_same_each_time(tmp_path: Path) -> None:
    write_dsm(tmp_path / "dsm.tif")
    where = degrees(470_060.0, 5_200_040.0)
    cloud = cloud_of_geotiff(tmp_path / "dsm.tif", *where, 40.0, seed=3)
    above_slope = cloud[:, 2] - 0.1 * cloud[:, 0] + 0.2 * cloud[:, 1]
    np.testing.assert_allclose(above_slope, above_slope.mean(), atol=0.1)
    assert np.array_equal(cloud, cloud_of_geotiff(tmp_path / "dsm.tif", *where, 40.0, seed=3))
    assert np.abs(cloud[:, :2]).max() == pytest.approx(20.0, abs=1.0)


def test_a_surface_model_that_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dsm.tif").write_text("no raster")
    with pytest.raises(CloudError, match="surface model"):
        cloud_of_geotiff(tmp_path / "dsm.tif", 2.6, 46.9, 40.0, seed=3)
    write_dsm(tmp_path / "good.tif")
    with pytest.raises(CloudError, match="quarter of the square"):
        cloud_of_geotiff(tmp_path / "good.tif", *degrees(480_000.0, 5_200_040.0), 40.0, seed=3)
    (tmp_path / "places.csv").write_text("name,lat\na,1\n")
    with pytest.raises(CloudError, match="latitude_deg"):
        read_places(tmp_path / "places.csv")


# ---- frames


def turned(points: np.ndarray) -> np.ndarray:
    """As some reconstruction would have them: turned, scaled, moved."""
    angle = 0.8
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(2.1), -np.sin(2.1)], [0, np.sin(2.1), np.cos(2.1)]])
    return 0.3 * points @ (about_x @ about_z).T + [4.0, -2.0, 9.0]


def test_a_reconstruction_is_laid_on_the_positions_of_its_cameras() -> None:
    points = rng().normal(0, [30, 30, 3], (500, 3))
    cameras = np.array([[0.0, 0, 90], [40, 0, 95], [0, 40, 88], [35, 30, 91]])
    np.testing.assert_allclose(laid_on(turned(points), turned(cameras), cameras), points, atol=1e-8)
    with pytest.raises(CloudError, match="one line"):
        laid_on(turned(points), turned(cameras[:1] * [[1], [2], [3]]), cameras[:1] * [[1], [2], [3]])


def test_without_positions_the_ground_is_level_and_the_cameras_are_above_it() -> None:
    points = rng().normal(0, [30, 20, 1], (500, 3))
    cameras = np.array([[0.0, 0, 90], [40, 0, 95]])
    for at, eyes in ((points, cameras), (points * [1, 1, -1], cameras * [1, 1, -1])):
        level = levelled(turned(at), turned(eyes))
        assert level[:, 2].std() == pytest.approx(0.3 * 1.0, rel=0.15)
        heights = points[:, 2] - points[:, 2].mean()
        assert np.corrcoef(level[:, 2], heights)[0, 1] > 0.99
        assert np.linalg.det(np.linalg.lstsq(turned(at) - turned(at).mean(axis=0), level, rcond=None)[0]) > 0


def test_thinning_drops_what_is_far_off_and_never_doubles_a_point() -> None:
    points = np.concatenate([rng().normal(0, 1, (1500, 3)), [[500.0, 0, 0], [np.nan, 0, 0]]])
    cloud = thinned(points, rng())
    assert cloud.shape == (POINTS, 3)
    assert np.abs(cloud).max() < 10
    assert len(np.unique(cloud, axis=0)) == POINTS
    with pytest.raises(CloudError, match="points"):
        thinned(points[:1000], rng())


# ---- folders


def test_clouds_are_kept_and_read_by_place(tmp_path: Path) -> None:
    cloud = rng().normal(size=(POINTS, 3)).astype(np.float32)
    write_cloud(tmp_path / "clouds", "0839", cloud)
    assert [path.name for path in (tmp_path / "clouds").iterdir()] == ["0839.npy"]
    assert np.array_equal(read_clouds(tmp_path / "clouds")["0839"], cloud)
    np.save(tmp_path / "clouds" / "0840.npy", cloud[:5])
    with pytest.raises(CloudError, match="0840"):
        read_clouds(tmp_path / "clouds")
    with pytest.raises(CloudError, match="train clouds"):
        read_clouds(tmp_path / "nothing")


def test_pictures_are_found_by_place_and_their_positions_read(tmp_path: Path) -> None:
    for name in ("a/2.jpg", "a/1.JPG", "a/notes.txt", "b/1.png", "empty/readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = places_of(tmp_path)
    assert {place: [p.name for p in paths] for place, paths in found.items()} == {
        "a": ["1.JPG", "2.jpg"],
        "b": ["1.png"],
    }
    assert positions_of(found["a"]) == {}
    (tmp_path / "a" / "positions.csv").write_text("name,east_m,north_m,up_m\n2.jpg,1,2,80\n")
    assert positions_of(found["a"])["2.jpg"].tolist() == [1.0, 2.0, 80.0]
    (tmp_path / "a" / "positions.csv").write_text("name,east_m\n2.jpg,1\n")
    with pytest.raises(CloudError, match="positions"):
        positions_of(found["a"])
    with pytest.raises(CloudError, match="no pictures"):
        places_of(tmp_path / "nothing")


def test_the_command_makes_the_clouds_that_are_missing_and_names_the_places_it_cannot_make(tmp_path: Path) -> None:
    write_dsm(tmp_path / "dsm.tif")
    inside, outside = degrees(470_060.0, 5_200_040.0), degrees(480_000.0, 5_200_000.0)
    rows = [f"{name},{lat},{lon}" for name, (lon, lat) in (("here", inside), ("there", outside))]
    (tmp_path / "places.csv").write_text("\n".join(["place,latitude_deg,longitude_deg", *rows]))
    command = ["surface", str(tmp_path / "dsm.tif"), str(tmp_path / "places.csv"), "--side-m", "40"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "clouds")])
    assert done.exit_code == 0
    assert "clouds of 1 of 2 places" in done.output
    assert "there: surface model" in done.output
    kept = (tmp_path / "clouds" / "here.npy").stat().st_mtime_ns
    CliRunner().invoke(app, [*command, "--out", str(tmp_path / "clouds")])
    assert (tmp_path / "clouds" / "here.npy").stat().st_mtime_ns == kept
    (tmp_path / "places.csv").write_text("\n".join(["place,latitude_deg,longitude_deg", rows[1]]))
    failed = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "none")])
    assert isinstance(failed.exception, PilotageError)
    assert "none of 1 places" in str(failed.exception)


# ---- VGGT


def test_vggt_without_weights_or_package_says_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.clouds.vggt import Vggt

    with pytest.raises(CloudError, match="VGGT-1B") as missing:
        Vggt(tmp_path)
    assert "--weights" in str(missing.value)
    (tmp_path / "model.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "vggt", None)
    with pytest.raises(CloudError, match="facebookresearch/vggt"):
        Vggt(tmp_path)


def test_vggts_points_become_a_level_cloud_of_those_it_is_sure_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from training.clouds.vggt import Vggt

    class Fake(torch.nn.Module):
        """Stands for the network: ground below the first camera, which looks down its own z axis; a rim it doubts."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(()))

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            side = torch.linspace(-1, 1, 40)
            x, y = torch.meshgrid(side, side, indexing="xy")
            points = torch.stack([x, y, self.scale + 0.01 * torch.sin(9 * x)], dim=-1)
            sure = ((x.abs() < 0.8) & (y.abs() < 0.8)).float() + 0.01 * x
            points[(x.abs() >= 0.8) | (y.abs() >= 0.8)] += 5.0
            shape = (1, len(images), 1, 1)
            return {
                "world_points": points.repeat(*shape, 1),
                "world_points_conf": sure.repeat(*shape),
            }

    names = ("vggt", "vggt.models", "vggt.models.vggt", "vggt.utils", "vggt.utils.load_fn")
    modules = {name: types.ModuleType(name) for name in names}
    modules["vggt.models.vggt"].VGGT = Fake  # type: ignore[attr-defined]
    modules["vggt.utils.load_fn"].load_and_preprocess_images = lambda paths: torch.zeros(len(paths), 3, 14, 14)  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    torch.save({"scale": torch.tensor(2.0)}, tmp_path / "model.pt")
    cloud = Vggt(tmp_path).cloud_of_pictures([Path("a.jpg"), Path("b.jpg")])
    assert cloud.shape == (POINTS, 3)
    assert cloud[:, 2].std() < 0.02  # level, though the camera looked down its z axis; nothing of the rim
    torch.save({"other": torch.tensor(2.0)}, tmp_path / "model.pt")
    with pytest.raises(CloudError, match="VGGT-1B"):
        Vggt(tmp_path)


# ---- COLMAP


def test_colmap_that_is_not_installed_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CloudError, match="pilotage\\[clouds\\]"):
        colmap.cloud_of_pictures([Path("a/1.jpg")])


def test_what_runs_beside_pycolmap_does_not_import_opencv() -> None:
    import subprocess

    code = "import sys, training.clouds.colmap; raise SystemExit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not colmap.available(), reason="pycolmap is not installed: pip install '.[clouds]'")
def test_colmap_finds_the_shape_of_rendered_ground_in_metres(tmp_path: Path) -> None:
    """Twelve views from a ring about a procedural place; the cloud is held against the surface that it is of."""
    import cv2

    from onboard.camera import CameraModel
    from onboard.frames import BODY_FROM_CAMERA_DOWN, rotation_from_euler
    from training.renderer.place import generate_place
    from training.renderer.scene import Scene, render

    place = generate_place(3, 360.0, 0.5, 60.0)
    camera = CameraModel(512, 384, np.array([[410.0, 0, 255.5], [0, 410.0, 191.5], [0, 0, 1]]), ())
    scene, folder, rows = Scene(place, place.orthophoto), tmp_path / "site", ["name,east_m,north_m,up_m"]
    folder.mkdir()
    for k in range(12):
        azimuth = 2 * np.pi * k / 12
        spot = 38.0 * np.array([np.sin(azimuth), np.cos(azimuth)])  # east, north
        position = np.array([*spot, float(place.terrain_m.max()) + 70.0 + 8.0 * (k % 3)])
        inwards = rotation_from_euler(0.0, np.radians(22.0), azimuth + np.pi)
        image = render(scene, camera, BODY_FROM_CAMERA_DOWN, inwards, position)
        cv2.imwrite(str(folder / f"{k:02d}.png"), image[..., ::-1])
        rows.append(f"{k:02d}.png," + ",".join(f"{v:.3f}" for v in position))
    (folder / "positions.csv").write_text("\n".join(rows))
    cloud = colmap.cloud_of_pictures(places_of(tmp_path)["site"], limit_s=300.0)
    pixels = cloud[:, :2] @ place.pixel_from_enu[:, :2].T + place.pixel_from_enu[:, 2]
    col, row = np.clip(pixels.round().astype(int), 0, 719).T
    assert np.median(np.abs(cloud[:, 2] - place.surface_m[row, col])) < 1.0
    assert np.ptp(cloud[:, 0]) > 40.0


def test_pairs_of_a_public_data_set_get_the_clouds_of_their_places() -> None:
    from training.clouds.pairs import WithClouds

    class Pairs:
        name, label, where_m = "toy", np.array([0, 0, 1]), np.zeros((3, 2))

        def __len__(self) -> int:
            return 3

        def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"label": self.label[index]}

    clouds = {place: rng().normal(size=(POINTS, 3)) for place in ("a", "b")}
    source = WithClouds(Pairs(), ["a", "a", "b"], clouds)
    assert (len(source), source.label.tolist()) == (3, [0, 0, 1])
    assert source.draw(2, rng())["cloud"] is clouds["b"]
    assert source.draw(2, rng())["label"] == 1
    with pytest.raises(CloudError, match="1 of 3 places, the first c"):
        WithClouds(Pairs(), ["a", "b", "c"], clouds)
