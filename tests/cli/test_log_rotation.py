"""The logs of running children are bounded in size and number."""

from pathlib import Path

from api.cli.supervisor.log_rotation import NUM_OLD_LOGS, old_log, rotate


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    rotate(log)
    log.write_bytes(b"x" * 100)

    rotate(log, max_bytes=100)

    assert [path.name for path in tmp_path.iterdir()] == ["api.log"]


def test_a_large_log_is_rotated_while_its_process_writes(tmp_path: Path) -> None:
    log = tmp_path / "worker-a.b.log"
    with log.open("ab", buffering=0) as file:
        for number in range(6):
            file.write(b"%d" % number * 101)
            rotate(log, max_bytes=100)
        file.write(b"last")

    assert log.read_bytes() == b"last"
    old = [old_log(log, number).read_bytes()[:1] for number in range(1, NUM_OLD_LOGS + 1)]
    assert old == [b"5", b"4", b"3"]
    assert len(list(tmp_path.iterdir())) == NUM_OLD_LOGS + 1
