"""`vmp-edge evaluate` measures, compares and reports."""

import os
import signal

import pytest
from bundles import make_manifest, write_bundle
from commands import RUN, last_json, run, start

from vmp_edge.formatting import quantity
from vmp_edge.preprocessing import Preprocessing


def test_evaluate_counts_and_names(capsys, bundle, clips):
    code, out, err = run(capsys, "evaluate", bundle, "--data", clips, "--workers", 0, "--json")
    result = last_json(out)
    assert code == 0
    assert (result["top1"], result["top5"], result["clips"], result["compare"]) == (1.0, None, 2, None)
    assert result["folds"] == {"0": 1.0, "1": 1.0} and result["sampling"] == {"mode": "uniform", "clips": 1}
    assert result["skipped"] == [{"path": str(clips.parent / "none.avi"), "reason": "there is no such file"}]
    assert "top-1 100.0% of 2 videos, 1 left out" in out[0]
    assert result["top1_interval"] == [0.3424, 1.0] and result["majority"] == {"label": "brighter", "top1": 0.5}
    assert "34.2 to 100.0% (Wilson)" in out[1] and "33.3% by chance, 50.0% by always saying brighter" in out[2]
    assert any(line.lstrip().startswith("engine") and "half of the runs" in line for line in out)
    assert result["timing"]["rounds"] >= 7 and result["engine_ms"]["p50"] > 0
    assert any(line.startswith("left out: ") and "none.avi" in line for line in err)


def test_evaluate_compares_and_reports(capsys, bundle, clips, tmp_path):
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    other = write_bundle(tmp_path / "other", gain=0.0)
    page = tmp_path / "out.html"
    options = ["--compare", bundle, "--report", page, "--workers", 0, "--sampling", "dense", "--clips", 2, "--json"]
    code, out, _ = run(capsys, "evaluate", other, "--data", clips, *options)
    result = last_json(out)
    assert code == 0 and result["report"] == str(page) and page.read_text().startswith("<!doctype html>")
    assert result["top1"] == 0.0 and result["compare"]["top1"] == 1.0 and result["compare"]["drop_points"] == 100.0
    assert [video["baseline"] for video in result["compare"]["differing"]] == ["brighter", "darker"]
    assert sum(line.lstrip().startswith("differs") for line in out) == 2


def test_evaluate_of_nothing_reports_the_reasons(capsys, bundle, clips, tmp_path):
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    clips.write_text("path,label\nnone.avi,steady\n")
    page = tmp_path / "out.html"
    code, out, err = run(capsys, "evaluate", bundle, "--data", clips, "--report", page, "--workers", 0)
    assert code == 1 and out == [] and "no videos that can be used" in err[-1]
    assert "No video could be used" in page.read_text() and "there is no such file" in page.read_text()


def test_evaluate_without_labels_compares_and_claims_no_accuracy(capsys, bundle, clips, tmp_path):
    videos = tmp_path / "videos.txt"
    videos.write_text("brighter.avi\ndarker.avi\n")
    other = write_bundle(tmp_path / "other", gain=0.0)
    options = ["--data", videos, "--workers", 0, "--json"]
    code, out, _ = run(capsys, "evaluate", other, "--compare", bundle, *options)
    result = last_json(out)
    assert code == 0 and result["compare"]["agreement"] == 0.0 and "top1" not in result
    assert f"{bundle}: {other} agrees on 0.0%, 95% interval 0.0 to 65.8%" in out
    assert not any("top-1" in line or "it is" in line for line in out[:-1])
    code, out, err = run(capsys, "evaluate", bundle, *options)
    assert code == 2 and "2 videos without a label" in err[-1]


def test_evaluate_takes_a_fold_or_all_by_their_bundles(capsys, bundle, clips, tmp_path):
    _, out, _ = run(capsys, "evaluate", bundle, "--data", clips, "--workers", 0, "--fold", 0, "--json")
    assert last_json(out)["folds"] == {"0": 1.0}
    write_bundle(tmp_path / "fold-0")
    write_bundle(tmp_path / "fold-1", gain=0.0)
    _, out, _ = run(capsys, "evaluate", tmp_path / "fold-{fold}", "--data", clips, "--workers", 0, "--json")
    assert last_json(out)["folds"] == {"0": 1.0, "1": 0.0} and last_json(out)["folds_mean"] == 0.5


def test_odd_names_are_told_in_json_and_report(bundle, clips, tmp_path):
    """Names that are not UTF-8, or hold what a terminal would obey, come from disks of others."""
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    names = [b"caf\xe9.avi", b"a\nvmp-edge: fine.avi", b"red\x1b[31m.avi", "left\u202eright.avi".encode()]
    folder = tmp_path / "videos" / "brighter"
    folder.mkdir(parents=True)
    for name in names:
        (folder / os.fsdecode(name)).write_bytes((clips.parent / "brighter.avi").read_bytes())
    process = start(RUN, "evaluate", bundle, tmp_path / "videos", "--json", "--report", tmp_path / "page.html")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    result = last_json(out.splitlines())
    assert result["clips"] + len(result["skipped"]) == len(names)
    assert "Traceback" not in err and not [line for line in (out + err).splitlines() if not line.isprintable()]
    assert "caf\\xe9.avi" in (tmp_path / "page.html").read_text()


def test_the_videos_are_given_once(capsys, bundle, clips):
    for arguments in ([], [clips, "--data", clips]):
        code, out, err = run(capsys, "evaluate", bundle, *arguments)
        assert (code, out) == (2, []) and "give the labelled videos once" in err[-1]


@pytest.mark.parametrize(
    ("options", "expected", "message"),
    [
        (["--data", "nothing"], 1, "does not exist"),
        (["--clips", 0], 2, "at least one clip"),
        (["--workers", -1], 2, "--workers"),
        (["--fold", 7], 2, "has no fold 7"),
        (["--report", "none/out.html"], 2, "a folder that exists"),
        (["--compare", "nothing"], 1, "does not exist"),
    ],
)
def test_evaluate_says_what_is_wrong(capsys, bundle, clips, options, expected, message):
    code, out, err = run(capsys, "evaluate", bundle, "--data", clips, "--workers", 0, *options)
    assert code == expected and out == [] and message in err[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_videos_are_decoded_is_quiet(bundle, clips, number):
    """The terminal sends it to the worker processes as well, which must not complain."""
    rows = clips.read_text().splitlines()
    clips.write_text("\n".join([rows[0], *rows[1:2] * 20000]) + "\n")
    announce = "run = BrightnessEngine.run; BrightnessEngine.run = lambda *a: (print('on', flush=True), run(*a))[1]\n"
    code = f"from brightness_engine import BrightnessEngine\n{announce}{RUN}"
    process = start(code, "evaluate", bundle, "--data", clips, "--workers", "1", start_new_session=True)
    assert process.stdout.readline() == "on\n"
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and err == "vmp-edge: stopped\n"


def test_evaluate_tells_what_a_stream_sees(capsys, bundle, clips, tmp_path):
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    options = ["--data", clips, "--workers", 0, "--json", "--report", tmp_path / "page.html"]
    code, out, _ = run(capsys, "evaluate", bundle, *options)
    stream = last_json(out)["stream"]
    assert code == 0 and stream == {"clips": 2, "top1": 1.0, "top1_interval": [0.3424, 1.0], "skipped": []}
    assert "as a stream sees it  top-1 100.0% of 2 videos, 95% interval 34.2 to 100.0%" in out[3]
    page = (tmp_path / "page.html").read_text()
    assert "sampled over the whole video" in page and "as a stream sees it (2 videos)" in page
    long = write_bundle(tmp_path / "long", make_manifest(span=10.0))
    code, out, _ = run(capsys, "evaluate", long, *options)
    assert code == 0 and last_json(out)["stream"]["clips"] == 0 and last_json(out)["top1"] == 1.0
    assert "no window of 0 videos, 2 too short or too slow" in out[3]
    for mode in ("uniform", "dense"):
        code, out, _ = run(capsys, "evaluate", bundle, *options, "--sampling", mode)
        assert code == 0 and "stream" not in last_json(out) and last_json(out)["sampling"]["mode"] == mode


def test_evaluate_averages_views(capsys, bundle, clips, tmp_path):
    options = ["--data", clips, "--workers", 0, "--json", "--views", "4x3"]
    cropped = write_bundle(tmp_path / "cropped", make_manifest(preprocessing=Preprocessing(16, "crop")))
    code, out, _ = run(capsys, "evaluate", cropped, *options)
    assert code == 0 and last_json(out)["top1"] == 1.0
    assert last_json(out)["sampling"] == {"mode": "published", "clips": 4, "crops": 3}
    code, _, err = run(capsys, "evaluate", bundle, *options)
    assert code == 2 and "resizes its frames by stretch, so there is 1 crop, not 3" in err[-1]
    code, _, err = run(capsys, "evaluate", bundle, *options, "--clips", 2)
    assert code == 2 and "--views says how clips are sampled" in err[-1]
    code, _, err = run(capsys, "evaluate", bundle, *options, "--views", "4")
    assert code == 2 and "such as 4x3" in err[-1]


@pytest.mark.parametrize("count", [2, 5])  # five have a share without a video, and one with an unusable one alone
def test_processes_share_the_videos_and_the_last_one_gives_the_result(
    capsys, bundle, clips, tmp_path, monkeypatch, count
):
    monkeypatch.chdir(tmp_path)
    other = write_bundle(tmp_path / "other", gain=0.0)
    options = ["--data", clips, "--compare", other, "--workers", 0, "--json"]
    _, out, _ = run(capsys, "evaluate", bundle, *options)
    whole = last_json(out)
    monkeypatch.setenv("WORLD_SIZE", str(count))
    for rank in range(1, count):
        monkeypatch.setenv("RANK", str(rank))
        code, out, err = run(capsys, "evaluate", bundle, *options)
        assert code == 0 and last_json(out) == {"data": str(clips), "share": rank, "shares": count}
        assert f"share {rank + 1} of {count} is done; the last one gives the result" in err[-1]
        assert f"{quantity(count - rank, 'part')} of {count} not yet in {tmp_path}" in err[-1]
    monkeypatch.setenv("RANK", "0")
    code, out, _ = run(capsys, "evaluate", bundle, *options)
    shared = last_json(out)
    assert whole["timing"] is not None and shared["timing"] is None  # the machines may differ
    assert whole["stream"] is not None
    for result in (whole, shared):
        for facts in (result, result["compare"]):
            for name in ("timing", "engine_ms", "speed", "speed_measured"):
                facts.pop(name, None)
    assert code == 0 and shared == whole and list(tmp_path.glob(".vmp-edge*")) == []
    code, _, err = run(capsys, "evaluate", str(tmp_path / "fold-{fold}"), "--data", clips, "--workers", 0)
    assert code == 2 and "share 1 of" in err[-1] and "cannot be shared between processes" in err[-1]
