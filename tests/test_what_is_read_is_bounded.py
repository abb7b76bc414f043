"""What a file declares is measured before it is made: numbers, levels of nesting, bytes, counts."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from dataset_files import columns, d4rl_file, episode, minari_folder
from safetensors import SafetensorError

from offline_robust.collection import make_recipe
from offline_robust.collection.recipes import parse_recipe
from offline_robust.datasets import load_dataset
from offline_robust.datasets.load import finish
from offline_robust.datasets.logged import COPIES
from offline_robust.datasets.minari_files import read_minari
from offline_robust.datasets.replay_buffers import read_buffer_file
from offline_robust.envs import load_suite
from offline_robust.envs.suites import Condition, Suite
from offline_robust.errors import CheckpointError, ConfigError, DatasetError, EvaluationError, UserError
from offline_robust.evaluation.results import COLUMNS, Results
from offline_robust.experiments.checkpoints import load_checkpoint
from offline_robust.experiments.metrics import read_metrics
from offline_robust.networks import load_policy
from offline_robust.plain_yaml import read_yaml
from offline_robust.reports import write_reports
from offline_robust.reports.records import RunRecord
from offline_robust.sweeps.comparison import comparison_sweep, load_comparison
from offline_robust.sweeps.grids import expand, load_sweep
from offline_robust.tensor_files import MAX_HEADER, open_tensors
from offline_robust.untrusted import MAX_JSON_DEPTH, MEMORY, free_memory, parse_json

DIGITS = "9" * 4_000
"""Python reads up to 4,300 digits without a word."""

# --- JSON -----------------------------------------------------------------------------------------------------------

REFUSED = {
    "digits": DIGITS,
    "more digits": "9" * 5_000,
    "65 bits": str(2**64),
    "negative": str(-(2**63) - 1),
    "inside": f'{{"a": [{{"b": {DIGITS}}}]}}',
    "deep lists": "[" * 65 + "]" * 65,
    "deeper lists": "[" * 200_000,
    "deep objects": '{"a":' * 65 + "1" + "}" * 65,
    "deep behind shallow": "[[1], [2], " + "[" * 70 + "]" * 70 + "]",
    "half a character": r'{"a": ["\ud800"]}',
    "half a key": r'{"\udfff": 1}',
    "not UTF-8": b'{"a": "\xff"}',
    "cut": '{"a": 1',
}


@pytest.mark.parametrize("name", REFUSED)
def test_json_beyond_the_bounds_is_a_value_error_in_one_line(name: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_json(REFUSED[name])
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


def test_json_within_the_bounds_is_what_python_reads() -> None:
    deep = "[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH
    wide = json.dumps([[k] for k in range(1_000)])
    for text in (f"[{2**64 - 1}, {-(2**63)}, 1e308, -0.5, NaN, Infinity]", deep, wide, r'"\ud83d\ude00"', '{"a": {}}'):
        assert repr(parse_json(text)) == repr(json.loads(text))
        assert repr(parse_json(text.encode())) == repr(json.loads(text))
    with pytest.raises(ValueError, match="at most 5"):
        parse_json("[1, 2]", 5)


def metrics_record(folder: Path, *lines: str) -> RunRecord:
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "meta.json").write_text("{}")
    return RunRecord.read(folder)


def test_metrics_beyond_the_bounds_are_left_out_and_told(tmp_path: Path) -> None:
    sound = ['{"step": 1, "a/b": 0.5}', '{"step": 2, "a/b": 1e101}', '{"step": 3, "a/b": 2.5}']
    odd = [
        f'{{"step": {DIGITS}, "a/b": 1}}',
        f'{{"step": 4, "a/b": {DIGITS}}}',
        '{"step": 1e308, "a/b": 1}',
        "[" * 5_000,
    ]
    record = metrics_record(tmp_path, *sound, *odd, '{"step": NaN, "a/b": 1}', '{"step": true, "a/b": 1}')
    assert [values.tolist() for values in record.metrics["a/b"]] == [[1.0, 3.0], [0.5, 2.5]]
    assert record.notes[0].startswith("6 lines of metrics.jsonl could not be read")
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if type(line["step"]) is int] == [1, 2, 3]


def test_hundreds_of_thousands_of_metrics_are_not_kept(tmp_path: Path) -> None:
    lines = [json.dumps({"step": k} | {f"a/{k}-{j}": 1.0 for j in range(20_000)}) for k in range(10)]
    record = metrics_record(tmp_path, *lines)
    assert len(record.metrics) == 1_000
    assert any("more than 1,000 metrics" in note for note in record.notes)


def test_one_endless_line_is_cut(tmp_path: Path) -> None:
    record = metrics_record(tmp_path, '{"step": 1, "a/b": 0.5}', '{"step": 2, "a/b": [' + "[]," * 2_000_000 + "[]]}")
    assert list(record.metrics) == ["a/b"]
    assert len(record.metrics["a/b"][0]) == 1


# --- Data files -----------------------------------------------------------------------------------------------------


def bomb(path: Path, rows: int, width: int = 20, kind: str = "f8") -> Path:
    """Zeros that take a thousandth of what they declare."""
    if path.suffix == ".npz":
        zeros = {"observations": np.zeros((rows, width), kind), "actions": np.zeros((rows, 1), kind)}
        np.savez_compressed(path, **zeros, rewards=np.zeros(rows, kind), terminals=np.zeros(rows, bool))
        return path
    with h5py.File(path, "w") as file:
        for name, shape in (("observations", (rows, width)), ("actions", (rows, 1)), ("rewards", (rows,))):
            data = file.create_dataset(name, shape, kind, compression="gzip", chunks=(20_000, *shape[1:]))
            for begin in range(0, rows, 20_000):
                data[begin : begin + 20_000] = np.zeros((20_000, *shape[1:]), kind)
        file["terminals"] = np.zeros(rows, bool)
    return path


@pytest.mark.parametrize("name", ["x.hdf5", "x.npz"])
def test_what_does_not_fit_into_free_memory_is_refused_before_it_is_made(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    path = bomb(tmp_path / name, 200_000)
    declared = 200_000 * 22 * 8
    monkeypatch.setenv(MEMORY, str(2 * declared))
    with pytest.raises(DatasetError, match=rf"of free memory; split the source, or set {MEMORY}"):
        load_dataset(path)
    monkeypatch.setenv(MEMORY, str(4 * declared))
    assert len(load_dataset(path)) == 200_000


def test_a_minari_episode_that_does_not_fit_stops_the_reading(tmp_path: Path, monkeypatch) -> None:
    folder = minari_folder(tmp_path / "x", [episode(3), episode(500, seed=1)])
    monkeypatch.setenv(MEMORY, "20k")
    with pytest.raises(DatasetError, match="a source may take"):
        load_dataset(folder)


@pytest.mark.parametrize("name", ["x.hdf5", "x.npz"])
def test_loading_holds_double_precision_once_and_single_once(name: str, tmp_path: Path) -> None:
    """The source's own numbers stay until what float32 loses of them is measured, and no copy of them is made."""
    path = bomb(tmp_path / name, 2_000_000)
    program = (
        "import resource, sys; from offline_robust import load_dataset; "
        "peak = lambda: int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]) * 1024; "
        "load_dataset({'observations': [[0.0]], 'actions': [[0.0]], 'rewards': [0.0], 'terminals': [True]}); "
        "before = peak(); load_dataset(sys.argv[1]); print(peak() - before)"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    declared = 2_000_000 * 22 * 8
    assert int(said.stdout) < 1.5 * declared + 2_000_000 * 4 + 20e6


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_an_episode_is_let_go_once_its_rows_are_there(kind: str, tmp_path: Path) -> None:
    """Observations of T+1 rows become two arrays of T rows; what was read does not lie beside both of them."""
    episodes = [episode(20_000, seed=k) for k in range(20)]
    for one in episodes:
        one |= {key: one[key].astype(kind) for key in ("observations", "actions", "rewards")}
    folder = minari_folder(tmp_path / "x", episodes)
    load_dataset(folder, cache=False)
    declared = sum(values.nbytes for one in episodes for values in one.values())
    del episodes
    tracemalloc.start()
    logged = read_minari(folder / "data")
    _, while_read = tracemalloc.get_traced_memory()
    finish(logged)
    _, at_all = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert while_read < 2.3 * declared
    assert at_all < COPIES * declared


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_a_replay_buffer_takes_no_more_than_its_budget_says(kind: str, tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), 40_000
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for k in range(10):
            shapes = {"observations": (rows, 6), "actions": (rows, 1), "rewards": (rows, 1)}
            for name, shape in shapes.items():
                file[f"{name}_{k}"] = rng.normal(size=shape).astype(kind)
            file[f"terminated_{k}"] = True
        file["num_episodes"], file["version"] = 10, "2.1"
    finish(read_buffer_file(tmp_path / "x.h5"))
    tracemalloc.start()
    finish(read_buffer_file(tmp_path / "x.h5"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < COPIES * 10 * rows * 8 * np.dtype(kind).itemsize


SPACES = {
    "a number type of gigabytes": {
        "type": "Box",
        "dtype": "S2000000000",
        "shape": [3],
        "low": [0] * 3,
        "high": [1] * 3,
    },
    "a text type": {"type": "Box", "dtype": "U9", "shape": [3], "low": ["a"] * 3, "high": ["b"] * 3},
    "objects": {"type": "Box", "dtype": "O", "shape": [3], "low": [0] * 3, "high": [1] * 3},
    "a shape of gigabytes": {"type": "Box", "dtype": "float32", "shape": [10**5, 10**5], "low": 0, "high": 1},
    "a negative shape": {"type": "Box", "dtype": "float32", "shape": [-3], "low": [0] * 3, "high": [1] * 3},
    "no list as shape": {"type": "Box", "dtype": "float32", "shape": {"a": 3}, "low": [0] * 3, "high": [1] * 3},
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_measured_before_it_is_made(name: str, tmp_path: Path) -> None:
    folder = minari_folder(tmp_path / "x", [episode(3)], observation_space=json.dumps(SPACES[name]))
    with pytest.raises(DatasetError, match="observation_space"):
        load_dataset(folder)


NPY = np.lib.format.magic(1, 0)
HEADERS = {
    "no literal": b"{" * 60,
    "a literal that is none": b"('a'" + b"," * 60,
    "a number type that is none": b"{'descr': '<f4000000000000', 'fortran_order': False, 'shape': (12,)}",
    "a number type of gigabytes": b"{'descr': '<S2000000000', 'fortran_order': False, 'shape': (12,)}",
    "a list as type": b"{'descr': [('a', '<f4', (9,), 3, 3)], 'fortran_order': False, 'shape': (12,)}",
    "digits": b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 5_000 + b",)}",
    "a negative length": b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -3)}",
    "deep": b"(" * 3_000,
    "half a token": b"{'descr': '''",
    "not text": bytes(range(128, 250)),
    "no keys": b"{}",
    "a null byte": b"\0" * 60,
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_damaged_header_in_an_npz_is_one_line(name: str, tmp_path: Path) -> None:
    content = columns(12)
    np.savez(tmp_path / "x.npz", **content)
    header = HEADERS[name]
    member = NPY + len(header).to_bytes(2, "little") + header + np.zeros(12, np.float32).tobytes()
    rewrite(tmp_path / "x.npz", rewards=member)
    with pytest.raises(DatasetError, match="rewards") as error:
        load_dataset(tmp_path / "x.npz")
    assert "\n" not in str(error.value)


def rewrite(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (kept | {f"{name}.npy": content for name, content in members.items()}).items():
            archive.writestr(name, content)


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **columns(12))
    rewrite(tmp_path / "x.npz", rewards=np.lib.format.magic(2, 0) + (2**28).to_bytes(4, "little") + bytes(2**28))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetError, match="rewards: is not a plain array"):
        load_dataset(tmp_path / "x.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 or before > 2**20


def test_an_archive_of_a_million_members_is_not_listed(tmp_path: Path, monkeypatch) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for k in range(20_000):
            archive.writestr(f"member-{k}", b"")

    def listed(*_: Any, **__: Any) -> None:
        raise AssertionError("the members were listed")

    monkeypatch.setattr(zipfile, "ZipFile", listed)
    with pytest.raises(DatasetError, match="more members than an npz archive has"):
        load_dataset(tmp_path / "x.npz")


# --- safetensors ----------------------------------------------------------------------------------------------------


def with_header(path: Path, header: bytes, claim: int | None = None) -> Path:
    path.write_bytes((len(header) if claim is None else claim).to_bytes(8, "little") + header)
    return path


def test_a_header_of_megabytes_is_refused_by_every_reader_of_safetensors(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"policy": "x" * (MAX_HEADER + 1), "checkpoint": "{}"}}).encode()
    path = with_header(tmp_path / "x.safetensors", header)
    for reader in (load_policy, load_checkpoint):
        with pytest.raises(CheckpointError, match="its header says"):
            reader(path)
    with pytest.raises(SafetensorError, match="its header says"), open_tensors(path):
        pass
    with pytest.raises(SafetensorError, match="at most 10 are read"), open_tensors(with_header(path, b"{}", 2**40)):
        pass


def test_a_file_larger_than_memory_is_refused(tmp_path: Path, monkeypatch) -> None:
    path = with_header(tmp_path / "x.safetensors", b"{}")
    os.truncate(path, 2**30)  # zeros that take no room on the disk
    monkeypatch.setenv(MEMORY, "512M")
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(path)


# --- Suites, sweeps, recipes ----------------------------------------------------------------------------------------

AXIS = {"parameter": "gravity", "levels": "0:1:10000"}
SUITES: dict[str, Any] = {
    "10,000 axes of 10,000 levels": {"sweeps": [AXIS] * 5_000},
    "a grid of 10,000 axes": {"grid": [{"parameter": f"p{k}", "levels": [1.0]} for k in range(8_000)]},
    "blocks": {"environments": [{"env_ids": ["Pendulum-v1"], "sweeps": [AXIS]} for _ in range(3_000)]},
    "one condition of thousands": {"conditions": [[{"parameter": "gravity", "level": 1.0}] * 5_000]},
    "thousands alongside": {
        "sweeps": [AXIS | {"with": [{"parameter": "gravity", "level": 1.0}] * 5_000}],
    },
}
SWEEPS: dict[str, Any] = {
    "a grid of 10,000 keys": {"grid": {f"env.kwargs.k{k}": [1] for k in range(10_000)}},
    "an item of 30,000 overrides": {"list": [{f"env.kwargs.k{k}": 1 for k in range(30_000)}]},
    "30,000 items": {"list": [{"training.steps": k} for k in range(1, 30_000)]},
    "a grid of a billion points": {"grid": {f"env.kwargs.k{k}": [1, 2] for k in range(30)}},
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML is slow, and not what these tests are about."""
    monkeypatch.setattr("offline_robust.envs.suite_files.read_yaml", lambda path, *_: json.loads(path.read_text()))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", SUITES)
def test_suites_are_counted_before_they_are_built(name: str, tmp_path: Path, monkeypatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(Condition, "__init__", lambda *_: made.append(1))
    (tmp_path / "suite.yaml").write_text(json.dumps({"name": "mine"} | SUITES[name]))
    with pytest.raises(EvaluationError) as error:
        load_suite(tmp_path / "suite.yaml")
    assert len(str(error.value)) < 300
    assert len(made) <= 20_000


def test_a_suite_of_ten_thousand_conditions_has_no_pair_compared(monkeypatch) -> None:
    from offline_robust.envs import Perturbation, system

    suite = Suite.of("mine", (Condition((Perturbation("gravity", 0.5 + k / 20_000),)) for k in range(10_000)))
    of = system("Pendulum-v1")
    monkeypatch.setattr(type(of), "ready", lambda _, p: p)
    monkeypatch.setattr(type(of), "check", lambda *_: False)
    assert len(suite.for_system(of)) == 10_001


@pytest.mark.parametrize("name", SWEEPS)
def test_sweeps_are_counted_before_they_are_built(name: str) -> None:
    base = {"dataset": "pendulum-td3", "learner": {"name": "sac"}}
    with pytest.raises(ConfigError, match="at most"):
        expand(load_sweep({"base": base, "seeds": 1} | SWEEPS[name]))


def test_comparisons_are_counted_before_they_are_built() -> None:
    comparison = {"datasets": [f"a{k}" for k in range(200)], "learners": [f"b{k}" for k in range(200)], "seeds": 1}
    with pytest.raises(ConfigError, match="40,000 learners on datasets"):
        comparison_sweep(load_comparison(comparison))


def test_a_yaml_of_many_values_is_not_read_to_its_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("offline_robust.plain_yaml.MAX_NODES", 2_000)
    (tmp_path / "x.yaml").write_text("[" + "1," * 1_990 + "1]")
    assert len(read_yaml(tmp_path / "x.yaml", "a file", 1_000_000, ConfigError)) == 1_991
    (tmp_path / "x.yaml").write_text("[" + "1," * 250_000 + "1]")
    with pytest.raises(ConfigError, match="more than 2,000 values"):
        read_yaml(tmp_path / "x.yaml", "a file", 1_000_000, ConfigError)


def test_a_recipe_larger_than_memory_collects_nothing(tmp_path: Path, monkeypatch) -> None:
    recipe = {"name": "a", "env_id": "Pendulum-v1", "seed": 0, "description": "", "transitions": 10_000_000}
    monkeypatch.setenv(MEMORY, "1G")
    with pytest.raises(DatasetError, match="10,000,000 rows of Pendulum-v1 need about"):
        make_recipe(parse_recipe(recipe | {"epsilon": 1.0}, "recipe"), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Results and reports --------------------------------------------------------------------------------------------


def table(learners: int = 1, conditions: int = 2, episodes: int = 1, **values: Any) -> pd.DataFrame:
    rows = [
        (
            f"r{k}",
            f"l{k}",
            0,
            "Pendulum-v1",
            f"c{c}",
            c == 0,
            "gravity",
            f"{1 + c / 10:g}",
            "scale",
            e,
            e,
            -1.0,
            5,
            True,
        )
        for k in range(learners)
        for c in range(conditions)
        for e in range(episodes)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(**values)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (table(300), "at most 100 learners"),
        (table(1, 200).assign(perturbation=[f"p{k}" for k in range(200)]), "at most 100 sets of perturbed parameters"),
        (table(1, 10_001), "at most 10,000 means"),
        (table(101).assign(env_id=[f"e{k}" for k in range(202)]), "at most 100 learners"),
    ],
)
def test_a_report_is_counted_before_it_is_drawn(frame: pd.DataFrame, words: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=words):
        write_reports(tmp_path / "out", Results(frame))
    assert not (tmp_path / "out").exists()


def test_levels_beyond_the_bounds_are_no_levels(tmp_path: Path) -> None:
    for level in ("1e308", "-1e308", "1" + "0" * 400, "nan"):
        write_reports(tmp_path, Results(table(2, 3).assign(level=["1", level, "1.2"] * 2)))


@pytest.mark.parametrize("value", ["1e308", "-1e101"])
def test_returns_beyond_the_bounds_are_refused(value: str, tmp_path: Path) -> None:
    table().assign(**{"return": value}).to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(EvaluationError, match="line 2: return is"):
        Results.read(tmp_path / "results.csv")


def test_a_table_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch) -> None:
    Results(table(10, 10, 10)).save(tmp_path / "results.csv")
    monkeypatch.setenv(MEMORY, "1M")
    with pytest.raises(EvaluationError, match="bytes of memory"):
        Results.read(tmp_path / "results.csv")


@pytest.mark.parametrize("key", ["parts", "page", "datasets", "versions", "broken"])
@pytest.mark.parametrize("value", [3, "x", True])
@pytest.mark.parametrize("inner", [False, True])
def test_results_meta_of_wrong_types_is_one_line(key: str, value: Any, inner: bool, tmp_path: Path) -> None:
    Results(table()).save(tmp_path / "results.csv")
    content = {"parts": [{key: value}]} if inner else {key: value}
    (tmp_path / "results.meta.json").write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=f"{key} is not a JSON"):
        Results.read(tmp_path / "results.csv")


# --- Memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount"), [("1000", 1000), ("2G", 2**31), ("3 M".replace(" ", ""), 3 * 2**20), ("1kb", 1024)]
)
def test_memory_can_be_said(text: str, amount: int, monkeypatch) -> None:
    monkeypatch.setenv(MEMORY, text)
    assert free_memory() == amount


@pytest.mark.parametrize("text", ["lots", "-1", "1e9", "9" * 30])
def test_what_is_no_amount_is_refused(text: str, monkeypatch) -> None:
    monkeypatch.setenv(MEMORY, text)
    with pytest.raises(UserError, match=MEMORY):
        free_memory()


def test_a_process_of_limited_memory_has_less() -> None:
    program = (
        "import resource; from offline_robust.untrusted import free_memory; "
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); print(free_memory())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < int(said.stdout) < 2**30


def test_yaml_and_data_are_read_as_ever(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"a": [1, 2.5, "b", None, True]}))
    assert read_yaml(tmp_path / "x.yaml", "a file", 100, ConfigError) == {"a": [1, 2.5, "b", None, True]}
    assert len(load_dataset(d4rl_file(tmp_path / "x.hdf5", columns(20, ends={9: "terminal"})))) == 20
