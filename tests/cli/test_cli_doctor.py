"""The doctor: what counts as essential, and that every failure comes with its fix."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fosp.cli import checks, doctor
from fosp.cli.checks import Check, check_gl, check_machine, check_paths, check_versions, cpu_formats, probe_gl
from fosp.cli.main import main
from fosp.nets import native

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names the GL back ends of Linux")
DREW: dict[str, Any] = {"renderer": "llvmpipe", "milliseconds": 1.0}


def prober(**errors: str) -> Any:
    """A probe in which the back ends named fail; egl is the one in use."""

    def probe(backend: str | None) -> dict[str, Any]:
        name = backend or "egl"
        return {"backend": name, **({"error": errors[name]} if name in errors else DREW)}

    return probe


@linux_only
def test_the_renderer_in_use_is_what_counts() -> None:
    rows = check_gl(prober(osmesa="no library", glfw="no display"))
    assert [(row.name, row.status) for row in rows] == [("egl (in use)", "ok"), ("osmesa", "off"), ("glfw", "off")]
    assert all(row.fix == "" for row in rows)


@linux_only
def test_another_back_end_that_works_is_the_fix() -> None:
    first, *_ = check_gl(prober(egl="broken", glfw="no display"))
    assert (first.status, first.fix) == ("FAIL", "export MUJOCO_GL=osmesa")
    assert "broken" in first.detail


@linux_only
@pytest.mark.parametrize(
    ("manager", "fix"), [("apt-get", "libegl-mesa0"), ("dnf", "mesa-dri-drivers"), (None, "package manager")]
)
def test_without_any_the_fix_is_the_command_to_install_one(
    manager: str | None, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == manager else None)
    rows = check_gl(prober(egl="a", osmesa="b", glfw="c"))
    assert rows[0].status == "FAIL"
    assert fix in rows[0].fix


@linux_only
def test_a_platform_forced_upon_pyopengl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")
    assert check_gl(prober(egl="a", osmesa="b", glfw="c"))[0].fix == "unset PYOPENGL_PLATFORM"


def test_a_back_end_that_does_not_exist_is_an_answer_and_no_crash() -> None:
    found = probe_gl("nonsense")
    assert found["backend"] == "nonsense"
    assert "MUJOCO_GL" in found["error"]


def test_the_renderer_of_this_machine_draws() -> None:
    """The other tests of this project need it as well; here its absence is said plainly."""
    found = probe_gl(None)
    assert "error" not in found, f"{found}; see fosp doctor"
    assert found["milliseconds"] > 0


def test_a_probe_that_hangs_or_dies_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PROBE_SECONDS", 0.01)
    assert "within" in probe_gl("egl")["error"]
    monkeypatch.setattr(checks, "PROBE_SECONDS", 60.0)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert "code 1" in probe_gl("egl")["error"]


def test_the_codec_writes_and_reads() -> None:
    (row,) = checks.check_codec()
    assert row.status == "ok", row


def test_a_codec_that_loses_frames_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from fosp.report import video

    encode = video.encode
    monkeypatch.setattr(video, "encode", lambda frames, fps: encode(frames[:3], fps))
    (row,) = checks.check_codec()
    assert row.status == "FAIL"
    assert "read 3" in row.detail
    assert "pip install" in row.fix


def test_devices_name_the_cpu() -> None:
    rows = checks.check_devices()
    assert rows[0].name == "cpu"
    assert rows[0].status == "ok"
    assert all(row.fix for row in rows if row.status in ("warn", "FAIL"))


def test_cpu_formats_are_read_from_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\nprocessor : 1\nflags : fpu\n")
    assert cpu_formats(path) == ["amx_bf16", "avx512_bf16"]
    assert cpu_formats(tmp_path / "missing") == []


def test_versions_in_range_share_a_row() -> None:
    rows = check_versions()
    assert [row.name for row in rows] == ["python", "packages"]
    assert all(row.status == "ok" for row in rows)
    assert "mujoco 3." in rows[1].detail


def test_a_version_out_of_range_and_a_missing_package_fail_with_their_command() -> None:
    versions = {"mujoco": "4.0.0", "torch": "2.13.0+cpu", "av": None}
    rows = {row.name: row for row in check_versions(lambda name: versions.get(name, "1000.0"))}
    assert rows["mujoco"].status == rows["av"].status == rows["numpy"].status == "FAIL"
    assert "wrong accelerations" in rows["mujoco"].detail
    assert "pip install 'mujoco" in rows["mujoco"].fix and "<4" in rows["mujoco"].fix
    assert "missing" in rows["av"].detail
    assert "torch 2.13.0+cpu" in rows["packages"].detail
    assert "torch" not in rows


def test_places_are_tried_by_writing(tmp_path: Path) -> None:
    rows = {row.name: row for row in check_paths(tmp_path / "new" / "deep")}
    assert all(row.status != "FAIL" for row in rows.values())
    assert str(tmp_path) in rows["free disk"].detail
    assert list(tmp_path.iterdir()) == []  # nothing is left behind, nothing is made


def test_an_out_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("x")
    row = check_paths(tmp_path / "runs" / "a")[-1]
    assert row.status == "FAIL"
    assert "is a file" in row.detail
    assert "--out" in row.fix


def test_a_place_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path, prefix: str) -> Any:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    rows = check_paths(tmp_path)
    assert [row.status for row in rows[:3]] == ["warn", "FAIL", "FAIL"]
    assert "TMPDIR" in rows[1].fix


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("gigabytes", "status"), [(0.1, "FAIL"), (2, "warn"), (20, "ok")])
def test_little_room_is_told(gigabytes: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, int(gigabytes * 2**30)))
    row = check_paths(tmp_path)[-1]
    assert (row.name, row.status) == ("free disk", status)
    assert bool(row.fix) == (status != "ok")


def test_a_containers_limits_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2 * 2**30}\n")
    cores, memory = check_machine(tmp_path)
    assert (cores.detail, cores.status) == ("0.5", "warn")
    assert (memory.detail, memory.status) == ("2.0 GiB", "warn")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert float(check_machine(tmp_path)[0].detail) >= 1
    if hasattr(os, "sched_getaffinity"):
        assert float(check_machine(tmp_path)[0].detail) == len(os.sched_getaffinity(0))


def fake_trials(monkeypatch: pytest.MonkeyPatch, *rows: Check) -> None:
    monkeypatch.setattr(doctor, "examine", lambda out, sections: list(rows))


def test_the_exit_code_is_that_of_what_is_essential(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = Check("machine", "cores", "warn", "1", "be patient")
    fake_trials(monkeypatch, warning)
    assert main(["doctor"]) == 0
    assert "be patient" in capsys.readouterr().out
    long = "sudo apt-get install -y " + " ".join(f"package-{i}" for i in range(30))
    fake_trials(monkeypatch, warning, Check("gl", "egl [in use]", "FAIL", "no library", long))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"gl, egl [in use]:  {long}\n" in out  # on one line, to be copied
    assert "essential" in out


def test_json_is_for_machines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_trials(monkeypatch, Check("gl", "egl", "FAIL", "no library", "do this"))
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["checks"][0]["fix"] == "do this"


def test_only_the_sections_asked_for_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--only", "versions", "machine", "--json"]) == 0
    assert {row["section"] for row in json.loads(capsys.readouterr().out)["checks"]} == {"versions", "machine"}


def test_the_doctor_compiles_what_learning_takes_in_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (row,) = [row for row in checks.check_devices() if row.name == "C compiler"]
    if native.compiler() is not None and native.supported():
        assert row.status == "ok" and "compiled" in row.detail
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    (row,) = [row for row in checks.check_devices() if row.name == "C compiler"]
    assert row.status == "warn" and "slower" in row.detail and "gcc" in row.fix
