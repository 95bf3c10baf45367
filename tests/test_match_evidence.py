"""What is believed of a match: its chance of being right, its covariance, and the calibration that they ride on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from onboard.errors import EngineError
from onboard.match.evidence import Confidence, Logistic, confidence_path, read_confidence
from onboard.match.ranking import apart, exclusive
from onboard.records import Fix


def fix_at(east: float, probability: float) -> Fix:
    return Fix(0, np.array([east, 0.0]), np.eye(2), 0.0, 1.0, probability)


def test_look_alikes_share_one_chance_and_a_lone_place_keeps_its_own() -> None:
    assert [f.probability_right for f in exclusive([fix_at(100 * k, 0.999) for k in range(4)], 25.0)] == pytest.approx(
        [0.25] * 4, abs=1e-3
    )
    lone = exclusive([fix_at(0, 0.995), fix_at(100, 0.001)], 25.0)
    assert lone[0].probability_right == pytest.approx(0.995, abs=1e-4)
    same_place = exclusive([fix_at(0, 0.995), fix_at(3, 0.99)], 25.0)
    assert [f.probability_right for f in same_place] == pytest.approx([0.995, 0.99])
    certain = exclusive([fix_at(0, 1.0), fix_at(100, 1.0)], 25.0)
    assert [f.probability_right for f in certain] == pytest.approx([0.5, 0.5])
    assert exclusive([], 25.0) == []


def test_a_fix_knows_what_its_rivals_claim_on_their_own_evidence() -> None:
    fixes = [fix_at(0, 0.999), fix_at(3, 0.9), fix_at(19, 0.11), fix_at(21, 0.05), fix_at(400, 0.02)]
    claimed = [fix.evidence["rivals"] for fix in exclusive(fixes, 25.0)]
    assert claimed == pytest.approx([0.13, 0.13, 1.019, 1.019, 1.109])
    assert exclusive(fixes[:2], 25.0)[0].evidence["rivals"] == 0.0


def test_of_fixes_led_to_one_place_the_best_is_kept() -> None:
    fixes = [fix_at(0, 0.9), fix_at(5, 0.8), fix_at(60, 0.7), fix_at(12, 0.6), fix_at(67, 0.5)]
    assert apart(fixes, 8.0) == [fixes[0], fixes[2], fixes[3]]
    assert apart([], 8.0) == []


def test_the_chance_is_a_logistic_function_of_the_evidence() -> None:
    logistic = Logistic(-2.0, {"coarse": 10.0, "agree": 1.0})
    assert logistic.probability({"coarse": 0.1, "agree": 1.0, "fine": 9.0}) == pytest.approx(0.5)
    assert logistic.probability({"coarse": 0.3, "agree": 1.0}) == pytest.approx(1 / (1 + math.exp(-2)))
    assert 0 <= logistic.probability({"coarse": -1e6, "agree": 0}) < 1e-9


def test_covariance_grows_with_the_alignment_the_floor_and_the_tilt_at_height() -> None:
    plain = Confidence(Logistic(0, {}), Logistic(0, {}), 3.0, 0.5, 1.0, "")
    np.testing.assert_allclose(plain.covariance(np.diag([1.0, 2.0]), 0.0, 0.5), np.diag([3.25, 6.25]))
    tilt = (100 * math.radians(1.0)) ** 2
    np.testing.assert_allclose(plain.covariance(np.zeros((2, 2)), 100.0, 0.5), np.eye(2) * (0.25 + tilt))


def test_a_match_without_gradients_in_common_is_less_exact() -> None:
    plain = Confidence(Logistic(0, {}), Logistic(0, {}), 3.0, 0.5, 0.0, "", unlike_m=2.0)
    like, unlike = (plain.covariance(np.zeros((2, 2)), 50.0, gradient) for gradient in (1.0, 0.25))
    np.testing.assert_allclose(like, np.eye(2) * 0.25)
    np.testing.assert_allclose(unlike, np.eye(2) * (0.25 + 1.5**2))


def test_what_unlike_matches_err_by_is_fitted_beside_scale_and_floor() -> None:
    from calibration.confidence import fit_covariance

    rng = np.random.default_rng(6)
    gradients = rng.uniform(0.1, 0.9, 4000)
    alignment = np.eye(2) * rng.uniform(0.05, 0.2, 4000)[:, None, None]
    sigma = np.sqrt(alignment[:, 0, 0] * 3.0 + 0.6**2 + (2.0 * (1 - gradients)) ** 2)
    errors = rng.normal(0, 1, (4000, 2)) * sigma[:, None]
    scale, floor, unlike = fit_covariance(errors, alignment, gradients)
    assert unlike == 2.0
    assert scale * 0.125 + floor**2 == pytest.approx(3.0 * 0.125 + 0.6**2, abs=0.25)
    assert fit_covariance(errors / sigma[:, None] * 0.8, alignment, gradients)[2] == 0.0


GOOD = {
    "whole": {"bias": -1, "weights": {"coarse": 1}},
    "local": {"bias": -2, "weights": {"agree": 2}},
    "covariance_scale": 3,
    "floor_m": 0.5,
    "tilt_sigma_deg": 0.3,
    "source": "a test",
}


def test_a_calibration_rides_beside_its_model_whatever_the_precision(tmp_path: Path) -> None:
    (tmp_path / "net.confidence.json").write_text(json.dumps(GOOD))
    for name in ("net.int8.onnx", "net.onnx"):
        assert confidence_path(tmp_path / name) == tmp_path / "net.confidence.json"
        read = read_confidence(tmp_path / name)
        assert (read.local.weights["agree"], read.covariance_scale, read.source) == (2.0, 3.0, "a test")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({k: v for k, v in GOOD.items() if k != "floor_m"}),
        json.dumps(GOOD | {"whole": {"bias": "much", "weights": {}}}),
        json.dumps(GOOD | {"local": {"bias": 0, "weights": {"margin": 1.0}}}),  # rivals do not speak in a local search
    ],
)
def test_a_broken_calibration_is_refused_in_one_line_with_the_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / "net.confidence.json").write_text(text)
    with pytest.raises(EngineError, match=r"net\.confidence\.json.*pilotage calibrate") as caught:
        read_confidence(tmp_path / "net.int8.onnx")
    assert "\n" not in str(caught.value)


def test_a_model_without_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no calibration beside the model"):
        read_confidence(tmp_path / "net.int8.onnx")


def test_the_shipped_calibration_can_be_read_and_more_evidence_never_hurts() -> None:
    from onboard.engine import SHIPPED_MODEL

    shipped = read_confidence(SHIPPED_MODEL)
    assert all(weight >= 0 for part in (shipped.whole, shipped.local) for weight in part.weights.values())
    assert shipped.covariance_scale > 0
    assert shipped.source
