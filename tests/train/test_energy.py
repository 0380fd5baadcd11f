"""Energy: which counters are added, what happens where there are none, and how parts and sittings add up."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trainee

from papertrial.core import registry
from papertrial.core.budget import ESTIMATED, MEASURED, UNKNOWN, Budget, Energy, Meter
from papertrial.core.facts import Facts
from papertrial.core.run import Run
from papertrial.core.task import Split
from papertrial.train import energy, loop
from papertrial.train.energy import EnergyMeter, energy_source

WH = 3_600_000_000  # microjoules


def zone(folder, key, name, microjoules, whole=100 * WH):
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    (place / "name").write_text(f"{name}\n")
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text(f"{whole}\n")


@pytest.fixture
def powercap(tmp_path):
    """A laptop's counters: two packages of which one is shown twice, parts of them, memory, and the whole platform."""
    folder = tmp_path / "powercap"
    for key, name in [
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "uncore"),
        ("intel-rapl:0:2", "dram"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ]:
        zone(folder, key, name, 10 * WH)
    return folder


def spend(folder, **watt_hours):
    for key, amount in watt_hours.items():
        file = folder / key.replace("_", ":").replace("rapl", "intel-rapl") / "energy_uj"
        file.write_text(str(int(file.read_text()) + int(amount * WH)))


@pytest.fixture
def no_model(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "cache"))
    energy._constant_power.cache_clear()
    monkeypatch.setitem(sys.modules, "codecarbon.core.cpu", None)
    yield
    energy._constant_power.cache_clear()


def test_packages_and_memory_are_counted_once(powercap):
    with EnergyMeter("cpu", powercap) as meter:
        assert meter.read().kwh == 0
        spend(powercap, rapl_0=2, rapl_0_0=1.5, rapl_0_1=0.2, rapl_0_2=0.5, rapl_1=1, rapl_2=9)
        found = meter.read()
    assert found.kwh == pytest.approx(3.5e-3)
    assert found.label == MEASURED
    assert "package-0, dram, package-1" in found.how


def test_a_counter_that_goes_round_is_followed(powercap):
    zone(powercap, "intel-rapl:0", "package-0", 99 * WH)
    with EnergyMeter("cpu", powercap) as meter:
        zone(powercap, "intel-rapl:0", "package-0", 4 * WH)
        assert meter.read().kwh == pytest.approx(5e-3)
        zone(powercap, "intel-rapl:0", "package-0", 1 * WH)
        assert meter.read().kwh == pytest.approx((5 + 97) * 1e-3)


def test_the_counters_are_looked_at_while_nobody_reads(powercap, monkeypatch):
    monkeypatch.setattr(energy, "_LOOK_EVERY", 0.01)
    looked = threading.Event()
    real = energy._Rapl.look
    monkeypatch.setattr(energy._Rapl, "look", lambda self: (real(self), looked.set()))
    with EnergyMeter("cpu", powercap):
        assert looked.wait(20)


def test_a_closed_meter_stays_where_it_was(powercap):
    with EnergyMeter("cpu", powercap) as meter:
        spend(powercap, rapl_0=1)
    spend(powercap, rapl_0=1)
    assert meter.read().kwh == pytest.approx(1e-3)


def test_counters_that_vanish_make_the_sum_unknown(powercap):
    with EnergyMeter("cpu", powercap) as meter:
        (powercap / "intel-rapl:0" / "energy_uj").unlink()
        found = meter.read()
    assert (found.kwh, found.label) == (None, UNKNOWN)
    assert "no longer" in found.how


@pytest.mark.usefixtures("no_model")
def test_without_counter_and_model_it_is_unknown(tmp_path):
    found = energy_source(tmp_path)
    assert (found.kwh, found.label) == (None, UNKNOWN)
    assert "pip install 'papertrial[energy]'" in found.how


@pytest.mark.usefixtures("no_model")
def test_counters_for_root_only_are_told_apart(powercap, monkeypatch):
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    (powercap / "intel-rapl:0" / "energy_uj").mkdir()  # cannot be read, not even by root
    monkeypatch.setattr(energy.os, "access", lambda path, mode: False)
    assert "only root may read them" in energy_source(powercap).how


@pytest.mark.usefixtures("no_model")
def test_counters_of_a_virtual_machine_that_stand_still_are_no_measurement(powercap):
    for place in powercap.iterdir():
        (place / "energy_uj").write_text("0")
    assert energy_source(powercap).label == UNKNOWN


def test_a_model_that_fails_ends_no_training(tmp_path, monkeypatch):
    def broken():
        raise AttributeError("another version")

    monkeypatch.setattr(energy, "_constant_power", broken)
    assert "another version" in energy_source(tmp_path).how


def test_the_estimate_is_codecarbons_own(tmp_path, monkeypatch, caplog):
    """Its constant mode, to the last digit, without its threads, files, log lines, or any connection."""
    hardware = pytest.importorskip("codecarbon.external.hardware")
    from codecarbon.core.cpu import TDP
    from codecarbon.external.ram import RAM

    logging.getLogger("codecarbon").disabled = True
    found = TDP()
    parts = [hardware.CPU.from_utils("", "constant", found.model, found.tdp), RAM(tracking_mode="machine")]
    theirs = sum(part.measure_power_and_energy(last_duration=3600)[1].kWh for part in parts)
    logging.getLogger("codecarbon").disabled = False

    def refused(*_, **__):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path.parent / "no-power-yet"))
    clock = [1000.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: clock[0])
    energy._constant_power.cache_clear()
    threads = threading.active_count()
    meter = EnergyMeter("cpu", tmp_path / "none")
    clock[0] += 3600
    ours = meter.read()
    assert ours.kwh == pytest.approx(theirs, rel=1e-9)
    assert ours.label == ESTIMATED
    assert "CodeCarbon" in ours.how and "constant" in ours.how
    assert threading.active_count() == threads
    assert not list(tmp_path.iterdir())
    assert not caplog.records


@pytest.fixture
def power(monkeypatch, tmp_path):
    """(what the model gives and how often it was asked, the power as a process finds it that has just begun)."""
    asked = []

    def model():
        asked.append(True)
        return 10.0 + len(asked), f"answer {len(asked)}"

    def begun():
        energy._constant_power.cache_clear()
        return energy._constant_power()

    monkeypatch.setenv("PAPERTRIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(energy, "_model_of_power", model)
    monkeypatch.setattr(energy.metadata, "version", lambda name: "1.0")
    yield asked, begun
    energy._constant_power.cache_clear()


def test_the_constant_power_is_looked_up_once_for_a_machine(power):
    asked, begun = power
    assert begun() == begun() == (11.0, "answer 1")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("metadata", "version", lambda name: "2.0"),
        ("platform", "node", lambda: "another"),
        ("psutil", "cpu_count", lambda: 3),
        ("psutil", "virtual_memory", lambda: SimpleNamespace(total=1)),
    ],
)
def test_another_package_or_machine_is_looked_up_anew(power, monkeypatch, where, name, value):
    asked, begun = power
    begun()
    monkeypatch.setattr(getattr(energy, where), name, value)
    assert begun() == begun() == (12.0, "answer 2")
    assert len(asked) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"follows_from": 1, "watts": 3, "how": ""}', "{"])
def test_a_damaged_cache_is_written_anew(power, tmp_path, content):
    asked, begun = power
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "power.json").write_text(content)
    assert begun() == begun() == (11.0, "answer 1")
    assert len(asked) == 1


def test_a_cache_that_cannot_be_written_costs_the_second_again(power, tmp_path):
    _, begun = power
    (tmp_path / "cache").write_text("a file in its place")
    assert [begun()[0], begun()[0]] == [11.0, 12.0]


def test_a_package_that_was_removed_is_missing_whatever_is_kept(power, monkeypatch, tmp_path):
    _, begun = power
    begun()

    def gone(name):
        raise energy.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(energy.metadata, "version", gone)
    energy._constant_power.cache_clear()
    assert "pip install 'papertrial[energy]'" in energy_source(tmp_path / "none").how


class FakeNvml(SimpleNamespace):
    """GPUs by UUID with millijoules since the driver was loaded."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if handle not in self.spent:
            raise self.NVMLError("Not Supported")
        return self.spent[handle]


@pytest.fixture
def nvml(monkeypatch):
    module = FakeNvml(spent={"GPU-0": 7_000_000, "GPU-1": 500})
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(energy, "_uuid", lambda index: f"GPU-{index}")
    return module


def test_the_gpu_in_use_is_measured(powercap, nvml):
    with EnergyMeter("cuda:1", powercap) as meter:
        nvml.spent["GPU-0"] += 10**9
        nvml.spent["GPU-1"] += 7_200_000  # 2 Wh
        spend(powercap, rapl_0=1)
        found = meter.read()
    assert found.kwh == pytest.approx(3e-3)
    assert found.label == MEASURED
    assert "RAPL" in found.how and "NVML" in found.how


def test_processes_of_one_machine_use_a_gpu_each(powercap, nvml, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with EnergyMeter("cuda:0", powercap) as meter:
        nvml.spent["GPU-0"] += 3_600_000
        nvml.spent["GPU-1"] += 3_600_000
        assert meter.read().kwh == pytest.approx(2e-3)


def test_other_machines_are_not_passed_over(powercap, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = energy_source(powercap)
    assert found.kwh is None and "other machines" in found.how and "RAPL" in found.how


def test_a_measured_cpu_beside_an_unknown_gpu_is_unknown_and_says_both(powercap, nvml):
    nvml.spent.clear()
    with EnergyMeter("cuda:0", powercap) as meter:
        found = meter.read()
    assert (found.kwh, found.label) == (None, UNKNOWN)
    assert "CPU measured" in found.how and "GPU unknown" in found.how and "Not Supported" in found.how


def test_a_gpu_without_nvml_says_what_to_install(powercap, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with EnergyMeter("cuda", powercap) as meter:
        assert "pip install 'papertrial[energy]'" in meter.read().how


def test_a_sum_is_labelled_by_its_weakest_part():
    measured, estimated = Energy(1.0, MEASURED, "a counter"), Energy(2.0, ESTIMATED, "a model")
    assert Energy() + measured == measured
    assert measured + estimated == Energy(3.0, ESTIMATED, "a counter; a model")
    assert measured + estimated + measured == Energy(4.0, ESTIMATED, "a counter; a model")
    assert (measured + Energy.unknown("no counter")).kwh is None
    assert (estimated + measured).since(measured).kwh == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Energy(0.021, ESTIMATED), "21 Wh e"),
        (Energy(0.021, MEASURED), "21 Wh"),
        (Energy(0.00012, MEASURED), "0.12 Wh"),
        (Energy(2e-6, MEASURED), "<0.01 Wh"),
        (Energy(1.44, MEASURED), "1.4 kWh"),
        (Energy(0.9997, MEASURED), "1000 Wh"),
        (Energy(0.0, MEASURED), "0 Wh"),
        (Energy.unknown("why"), "unknown"),
    ],
)
def test_energy_in_words(found, words):
    assert str(found) == words


class Fixed:
    """A meter that always says the same."""

    says = Energy()

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self):
        return self.says

    def close(self):
        pass


class Interrupt:
    """Ctrl-C after some steps."""

    def __init__(self, steps):
        self.left = steps

    def after_step(self, model):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_sittings_of_a_resumed_run_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "EnergyMeter", Fixed)
    monkeypatch.setattr(Fixed, "says", Energy(1.0, MEASURED, "a counter"))
    with pytest.raises(KeyboardInterrupt):
        trainee.start("adamw", tmp_path / "run", techniques=[Interrupt(10)])
    monkeypatch.setattr(Fixed, "says", Energy(2.0, ESTIMATED, "a model"))
    _, meter = trainee.start("adamw", tmp_path / "run", techniques=[Interrupt(-1)])
    assert meter.spent() == Energy(3.0, ESTIMATED, "a counter; a model")
    assert Meter(**json.loads(json.dumps(meter.to_json()))) == meter


def test_a_run_that_trains_nothing_spends_nothing(tmp_path):
    model, split = trainee.supervised(), trainee.table()
    meter = loop.train(model, split, trainee.CONFIGS["adamw"][1], Budget(steps=0), Run(tmp_path), seed=0)
    assert meter.spent() == Energy(0.0, MEASURED, "nothing was trained")


def test_trials_of_a_resumed_search_add_up(tmp_path, monkeypatch):
    from papertrial.baselines import _trees

    class Counting(Fixed):
        reads = 0

        def read(self):
            self.reads += 1
            return Energy(0.5 * self.reads, MEASURED, "a counter")

    monkeypatch.setattr(_trees, "EnergyMeter", Counting)
    draw = np.random.default_rng(0)
    numeric = draw.normal(size=(60, 3)).astype(np.float32)
    columns = {"numeric": numeric, "categorical": np.zeros((60, 0), np.int64), "target": numeric[:, 0].astype(float)}
    split, facts = Split(columns), Facts("table", 60, 60, numeric=3, outputs=1)
    module, run = registry.load("lightgbm"), Run(tmp_path / "run")
    run.folder.mkdir()
    config = module.Config(rounds=5, threads=1)
    module.build(config, facts).fit(split, split, facts, Budget(trials=2), 0, run)
    meter = module.build(config, facts).fit(split, split, facts, Budget(trials=3), 0, run)
    assert (meter.kwh, meter.energy) == (pytest.approx(1.5), MEASURED)


def test_a_gpu_is_named_as_nvml_names_it(monkeypatch):
    device = SimpleNamespace(uuid="4b9e")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    assert energy._uuid(0) == "GPU-4b9e"
