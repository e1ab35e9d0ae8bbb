import os
from contextlib import contextmanager


@contextmanager
def one_blas_thread():
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def available_cpus():
    return len(os.sched_getaffinity(0))
