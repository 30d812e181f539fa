"""Public ids: unlike each other, in threads and in child processes too."""

import os
from concurrent.futures import ThreadPoolExecutor

from storage.contract import JobKind
from storage.ids import is_public_id, new_id, new_job_id


def test_ids_made_in_threads_are_unlike_each_other() -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda _: new_job_id(JobKind.CHAT), range(5000)))

    assert len(set(ids)) == 5000
    assert len({one[-20:] for one in ids}) == 5000
    assert all(is_public_id(one) and len(one) == len("chatcmpl-") + 32 for one in ids)


def test_a_forked_process_does_not_repeat_its_parents_ids() -> None:
    new_id("x_")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, new_id("x_").encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)

    assert len(theirs) == 34
    assert theirs[-20:] != new_id("x_")[-20:]
