from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from jobs import run
from slide_drill import GOOD, results, write_models, write_slides

pytest.importorskip("ray", reason="--engine ray needs Ray, which is an extra")


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_of_ray_that_dies_in_the_middle_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_DISABLE_DOCKER_CPU_WARNING", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    slides = write_slides(tmp_path / "slides", bad=False)
    words = [slides, *write_models(tmp_path), "--stages", "prediction"]
    assert run("slide", *words, "--out", tmp_path / "local") == 0
    memory = {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
    second = cluster.add_node(num_cpus=1, **memory)
    ray.init(address=cluster.address, log_to_driver=False)
    codes: list[int] = []
    try:
        job = threading.Thread(
            target=lambda: codes.append(run("slide", *words, "--out", tmp_path / "ray", "--engine", "ray"))
        )
        job.start()
        locks = tmp_path / "ray" / "locks"
        until = time.monotonic() + 120
        while time.monotonic() < until and len(list(locks.glob("*"))) < 2:  # both nodes are at work
            time.sleep(0.02)
        cluster.remove_node(second, allow_graceful=False)
        job.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert codes == [0]
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert len(results(tmp_path / "ray")) >= 5 * len(GOOD)
