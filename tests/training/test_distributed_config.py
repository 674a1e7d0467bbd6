"""Settings of several processes that mean nothing; and what one process does alone."""

import numpy as np
import pytest

from jaxvision.errors import InputError
from jaxvision.training.distributed import (
    DistributedConfig,
    barrier,
    broadcast,
    broadcast_arrays,
    check_same,
    distributed_session,
    is_main_process,
    main_process_first,
)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (DistributedConfig("a:1"), "belong together"),
        (DistributedConfig(num_processes=2), "belong together"),
        (DistributedConfig("a:1", 2, 0, detect=True), "detect"),
        (
            DistributedConfig("a:1", 2, 2),
            "`distributed.process_id` 2: must be from 0 to 1",
        ),
        (DistributedConfig("a:1", 2, -1), "`distributed.process_id` -1"),
        (DistributedConfig("a", 2, 0), "give HOST:PORT"),
        (DistributedConfig(":1", 2, 0), "give HOST:PORT"),
        (DistributedConfig("a:b", 2, 0), "give HOST:PORT"),
        (DistributedConfig("a:99999", 2, 0), "give HOST:PORT"),
    ],
)
def test_settings_that_mean_nothing(config, complaint):
    with pytest.raises(InputError, match=complaint), distributed_session(config):
        raise AssertionError("unreachable")


def test_one_process_is_the_first_and_waits_for_nobody():
    arrays = {"a": np.zeros(3, np.float32)}
    with distributed_session(DistributedConfig()), main_process_first():
        assert is_main_process()
        assert broadcast({"b": [1]}) == {"b": [1]}
        assert broadcast_arrays(arrays) is arrays
        check_same("images", 7)
        barrier()
