"""`vmp-edge run` and `evaluate` on videos that are damaged, cut off, of variable rate, or oddly named."""

import json

import pytest
from commands import run
from videos import av, damage_file, decodable, make_video, own_times


@pytest.fixture
def damaged_video(tmp_path):
    return damage_file(make_video(tmp_path / "a.mp4", 90, options={"g": "12", "bf": "0"}))


def test_run_tells_how_many_frames_could_not_be_decoded(capsys, bundle, damaged_video):
    bad = 90 - decodable(damaged_video)
    code, out, errors = run(capsys, "run", bundle, "--source", damaged_video, "--headless", "--json")
    summary = json.loads(out[-1])["summary"]
    assert code == 0 and summary["frames"] == 90 - bad
    assert (summary["undecodable"], summary["damage"]) == (bad, f"{bad} of 90 frames could not be decoded")
    assert f"{damaged_video}: {bad} of 90 frames could not be decoded" in "\n".join(errors)


def test_run_tells_where_a_file_ended(capsys, bundle, tmp_path):
    path = make_video(tmp_path / "a.mp4", 90, container={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])
    _, out, errors = run(capsys, "run", bundle, "--source", path, "--headless")
    frames = out[-3].split()[0]
    assert f"the file ended after {frames} of 90 frames" in "\n".join(errors)


def test_the_times_of_results_are_the_files_own(capsys, bundle, tmp_path):
    path = make_video(tmp_path / "a.mp4", 60, ticks=lambda i: i if i < 30 else 30 + 4 * (i - 30))
    _, out, _ = run(capsys, "run", bundle, "--source", path, "--headless", "--json", "--hop", 1)
    times = {json.loads(line)["time"] for line in out[:-1]}
    assert times and times <= {round(time, 3) for time in own_times(path)}
    assert max(times) == pytest.approx(146 / 15, abs=0.001)


def test_a_name_with_a_colon_is_read_and_recorded_to(capsys, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "plain.mp4", 30).rename("cam1:10-00-00.mp4")
    code, out, _ = run(
        capsys, "run", bundle, "--source", "cam1:10-00-00.mp4", "--headless", "--json", "--record", "out:1.mp4"
    )
    assert code == 0 and json.loads(out[-1])["summary"]["recorded"] == "out:1.mp4"
    with av.open(str(tmp_path / "out:1.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluate_names_damaged_videos_and_files_that_are_no_videos(capsys, bundle, damaged_video, tmp_path, workers):
    folder = tmp_path / "clips" / "brighter"
    folder.mkdir(parents=True)
    bad = 90 - decodable(damaged_video)
    damaged_video.rename(folder / "damaged.mp4")
    for suffix in ("3gp", "mts", "ts"):
        make_video(tmp_path / "plain.mp4", 30, size=(176, 144)).rename(folder / f"a.{suffix}")
    (folder / "._a.mp4").write_bytes(b"not a video")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "b.mp4").write_bytes(b"not a video")
    (folder / "notes.txt").write_text("notes")
    code, out, errors = run(capsys, "evaluate", bundle, "--data", tmp_path / "clips", "--json", "--workers", workers)
    result = json.loads(out[-1])
    assert code == 0 and result["clips"] == 4 and result["skipped"] == []
    reason = f"{bad} of 90 frames could not be decoded"
    assert result["damaged"] == [{"path": str(folder / "damaged.mp4"), "reason": reason}]
    assert f"partly damaged: {folder / 'damaged.mp4'}: {reason}" in errors
    text = "\n".join(errors)
    assert "1 file is left out, no video by the name: notes.txt" in text and "._a.mp4" not in text
