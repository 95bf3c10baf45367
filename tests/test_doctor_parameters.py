"""What the doctor reads and writes: asked again, never unasked, never to an armed vehicle."""

from __future__ import annotations

import pytest
from scripted_parameters import INT8, INT32, REAL32, ParameterStore
from toy_doctor import ALONE, MUST, Bench, the

from onboard.errors import LinkError
from onboard.mavlink.doctor.parameters import ParameterClient, decoded, encoded
from onboard.mavlink.doctor.trial import TrialVerdict
from onboard.mavlink.doctor.visit import Wishes, visit


def test_a_parameter_that_is_never_answered_is_named_and_not_written() -> None:
    bench = Bench({}, store=ParameterStore(dict(ALONE), silent=frozenset({"VISO_TYPE"})))
    found = the(bench.visit(fix=True).findings, "VISO_TYPE")
    assert (found.severity, found.value, found.should_be, found.set_to) == (MUST, None, "1", None)
    assert "does not answer" in found.why
    assert bench.vehicle.heard["PARAM_REQUEST_READ"] > len(ALONE)  # it was asked for again
    assert bench.store.written == []


def test_requests_that_are_lost_are_sent_again() -> None:
    assert Bench({}, store=ParameterStore(dict(ALONE), deaf_to=11)).visit().ready


def test_a_parameter_that_does_not_take_its_value_ends_the_mending_by_name() -> None:
    bench = Bench({}, store=ParameterStore(ALONE | {"VISO_TYPE": 0}, stuck=frozenset({"VISO_TYPE"})))
    with pytest.raises(LinkError, match="VISO_TYPE was set, but the vehicle says: 0; expected 1"):
        bench.visit(fix=True)


def test_nothing_is_written_where_the_answer_is_no() -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0, "EK3_SRC1_POSXY": 3})
    bench.answer = False
    assert not bench.visit(fix=True).ready
    assert bench.store.written == []
    assert bench.asked == ["set these 2 parameters?"]


def test_what_counts_after_a_restart_only_is_said() -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0})
    mended = bench.visit(fix=True, dry_run_fix=True)
    assert mended.restart_needed
    assert mended.verdict == "ready to fly on Pilotage once the vehicle has been restarted"
    assert mended.dry_run is not None
    assert (mended.dry_run.verdict, bench.vehicle.fixes) == (TrialVerdict.NOT_RUN, [])


@pytest.mark.parametrize("wish", ["fix", "dry_run_fix"])
def test_an_armed_vehicle_is_only_looked_at(wish: str) -> None:
    bench = Bench(ALONE | {"VISO_TYPE": 0}, armed=True)
    with pytest.raises(LinkError, match=r"armed.*only looked at"):
        bench.visit(**{wish: True})
    diagnosis = bench.visit()
    assert (diagnosis.armed, diagnosis.ready) == (True, False)
    assert (bench.store.written, bench.vehicle.fixes, bench.vehicle.violations) == ([], [], [])


@pytest.mark.parametrize("wish", ["fix", "dry_run_fix"])
def test_a_vehicle_that_is_armed_while_the_question_stands_is_left_alone(wish: str) -> None:
    bench = Bench(ALONE | {"EK3_SRC1_YAW": 6})

    def think_and_arm(question: str) -> bool:
        bench.clock.advance(60)
        bench.vehicle.armed = True
        return True

    with pytest.raises(LinkError, match="armed"):
        visit(bench.session(), bench.settings, Wishes(think_and_arm, bench.said.append, at=(47.0, 8.0), **{wish: True}))
    assert (bench.store.written, bench.vehicle.fixes, bench.vehicle.origin) == ([], [], None)


def test_an_answer_may_take_its_time() -> None:
    bench = Bench(ALONE | {"EK3_SRC1_YAW": 6})

    def think(question: str) -> bool:
        bench.clock.advance(60)
        return True

    assert visit(bench.session(), bench.settings, Wishes(think, bench.said.append, fix=True)).ready
    wishes = Wishes(think, bench.said.append, dry_run_fix=True, at=(47.0, 8.0))
    dry_run = visit(bench.session(), bench.settings, wishes).dry_run
    assert dry_run is not None
    assert dry_run.verdict is TrialVerdict.TAKEN


def test_a_vehicle_that_is_armed_between_two_writes_is_not_written_to() -> None:
    bench = Bench(ALONE)
    session = bench.session()
    session.meet(5.0)
    client = ParameterClient(session)
    read = client.read(["VISO_TYPE"])
    bench.vehicle.armed = True
    session.run(2.0)
    with pytest.raises(LinkError, match="VISO_TYPE is not set: the vehicle is: armed"):
        client.write(read["VISO_TYPE"], 2)
    assert bench.store.written == []


@pytest.mark.parametrize(("kind", "value"), [(INT8, -3), (INT32, 786430), (INT32, -1), (REAL32, 0.3)])
def test_integers_travel_as_their_bytes_where_the_firmware_wants_it(kind: int, value: float) -> None:
    wire = encoded(value, kind, bytewise=True)
    assert decoded(wire, kind, bytewise=True) == pytest.approx(value)
    assert encoded(value, kind, bytewise=False) == value
    if kind == INT32 and value > 0:
        assert wire == pytest.approx(786430 * 2.0**-149)


def test_a_value_that_its_type_cannot_hold_is_refused() -> None:
    with pytest.raises(LinkError, match="parameter value: 300"):
        encoded(300, INT8, bytewise=True)
