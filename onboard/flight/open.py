"""Open a recorded flight, whatever kind it is."""

from __future__ import annotations

from pathlib import Path

from onboard.config import RectifyConfig
from onboard.errors import FlightError
from onboard.flight.source import Flight, Topics


def open_flight(path: Path | str, config: RectifyConfig = RectifyConfig(), topics: Topics = Topics()) -> Flight:
    """Open a rosbag2 folder, a single MCAP or db3 file, or a flight folder.

    Raises FlightError (or CameraError) where it is none of these, or lacks what a replay needs.
    """
    path = Path(path)
    if not path.exists():
        raise FlightError("no flight", path, "a rosbag2 folder, an MCAP file or a flight folder", "check the path")
    if path.is_dir() and (path / "frames.csv").is_file():
        from onboard.flight.folder import FolderFlight

        if topics != Topics():
            raise FlightError("topics told for a flight folder", path, "a rosbag2", "leave --topic out")
        return FolderFlight(path)
    if path.is_dir():
        is_bag = (path / "metadata.yaml").is_file() or any(path.glob("*.mcap")) or any(path.glob("*.db3"))
    else:
        is_bag = path.suffix in (".mcap", ".db3")
    if is_bag:
        try:
            from onboard.flight.bag import BagFlight
        except ModuleNotFoundError as error:
            raise FlightError(
                "reading a bag needs a library that is not installed", error.name, "", "pip install 'pilotage[desktop]'"
            ) from error
        return BagFlight(path, config, topics)
    raise FlightError(
        "not a flight",
        path,
        "metadata.yaml, *.mcap or frames.csv in the folder, or an .mcap file",
        "make a flight folder of geotagged photos with `pilotage flight from-photos`",
    )
