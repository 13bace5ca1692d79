import pytest
from pydantic import ValidationError

from simulator.knobs import Fault, Knobs
from simulator.settings import SimulatorSettings


def test_defaults_need_no_environment_and_record_nothing() -> None:
    settings = SimulatorSettings()

    assert (settings.simulator_host, settings.simulator_port) == ("127.0.0.1", 8090)
    assert settings.knobs == Knobs()
    assert settings.simulator_record is False


def test_knobs_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_SIMULATOR_KNOBS", "latency_ms=20 error=503 error_rate=5")

    assert SimulatorSettings().knobs == Knobs(latency_ms=20, error=Fault.UNAVAILABLE, error_rate=5)


def test_knob_that_does_not_exist_stops_the_start() -> None:
    with pytest.raises(ValidationError, match="'speed' is no knob"):
        SimulatorSettings(simulator_knobs="speed=9")
