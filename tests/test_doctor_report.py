"""What the doctor says: the report, the JSON, the exit status."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import typer
from rich.console import Console
from toy_doctor import ALONE, Bench
from typer.testing import CliRunner

from onboard.errors import LinkError
from onboard.mavlink.doctor import cli
from onboard.mavlink.doctor.report import show


def test_the_json_keeps_its_keys() -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0})
    told = json.loads(json.dumps(bench.visit(fix=True, dry_run_fix=True).as_dict(), allow_nan=False))
    assert set(told) == {
        "address", "armed", "autopilot", "changes", "dry_run", "findings", "firmware", "format", "kind", "link",
        "mode", "parameters", "profile", "ready", "restart_needed", "signed", "state", "system", "verdict",
    }  # fmt: skip
    assert told["format"] == 1
    assert set(told["link"]) == {
        "bytes_per_s", "capacity_bytes_per_s", "lost", "loss", "offset_jitter_ms", "received", "round_trip_ms",
        "round_trip_p95_ms", "seconds", "skew_ppm", "streams", "synced",
    }  # fmt: skip
    assert set(told["state"]) == {"estimator", "gps_fix_type", "origin", "pos_horiz_ratio"}
    change = told["changes"][0]
    assert (change["before"]["value"], change["after"]["value"], change["reboot"]) == (0, 1, True)
    assert told["dry_run"]["apart_m"] is None  # NaN is no JSON
    found = Bench(ALONE | {"VISO_TYPE": 0}).visit().as_dict()["findings"][0]
    assert set(found) == {"parameter", "reboot", "set_to", "severity", "should_be", "value", "why"}


def test_the_report_names_parameter_value_and_remedy_worst_first() -> None:
    values = ALONE | {"FS_EKF_ACTION": 0, "EK3_SRC1_YAW": 6, "RNGFND1_TYPE": 0}
    out = io.StringIO()
    show(Bench(values).visit(), Console(file=out, width=60))
    text = out.getvalue()
    places = [text.index(part) for part in ("EK3_SRC1_YAW is 6, should be 1", "FS_EKF_ACTION is 0", "RNGFND1_TYPE")]
    assert places == sorted(places)
    assert "167 m" in text
    assert text.rstrip().endswith("not ready: 1 thing to put right, 1 advised")


def run_cli(monkeypatch: pytest.MonkeyPatch, bench: Bench, *arguments: str) -> Any:
    """The command on the bench's line and by the bench's clock."""

    class BenchClock:
        now_ns: Callable[[], int] = staticmethod(lambda: bench.clock.now_ns)

    monkeypatch.setattr("onboard.live.cli.open_connection", lambda address, settings: bench.session().connection)
    monkeypatch.setattr("onboard.live.clock.SteadyClock", BenchClock)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(cli.doctor)
    return CliRunner().invoke(app, ["--mavlink", "udpout:memory:1", *arguments])


def test_the_exit_status_says_whether_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli(monkeypatch, Bench(ALONE)).exit_code == 0
    bench = Bench(ALONE | {"VISO_TYPE": 0})
    assert run_cli(monkeypatch, bench).exit_code == 1
    assert run_cli(monkeypatch, bench, "--fix", "--yes").exit_code == 0
    assert bench.store.values["VISO_TYPE"] == 1
    assert isinstance(run_cli(monkeypatch, Bench(ALONE, dumb=True)).exception, LinkError)  # main makes it 2


def test_json_on_standard_output_is_nothing_but_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_cli(monkeypatch, Bench(ALONE), "--json")
    assert json.loads(result.stdout)["ready"] is True
    assert isinstance(run_cli(monkeypatch, Bench(ALONE), "--json", "--fix").exception, LinkError)


@pytest.mark.parametrize("text", ["47", "47,8,1", "north,8", "91,8", "nan,8"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LinkError, match="LAT,LON"):
        cli.parse_place(text)
