import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxvision.arrays import restore_arrays, save_arrays
from jaxvision.errors import InputError

TREE = {
    "params": {
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "dotted.name": np.arange(4, dtype=np.uint32),
        "zeros": np.zeros((300, 300), ml_dtypes.bfloat16),
    },
    "batch_stats": {},
    "step": np.asarray(7),
}


def test_what_orbax_writes_is_read_as_orbax_reads_it(tmp_path):
    save_arrays(tmp_path / "arrays", TREE)
    found = restore_arrays(tmp_path / "arrays")
    by_orbax = ocp.PyTreeCheckpointer().restore(tmp_path / "arrays")
    assert found["batch_stats"] == by_orbax["batch_stats"] == {}
    for name, wanted in {**TREE["params"], "step": TREE["step"]}.items():
        array = found["params"].get(name, found["step"])
        theirs = np.asarray(by_orbax["params"].get(name, by_orbax["step"]))
        assert type(array) is np.ndarray
        assert array.dtype == theirs.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)
        np.testing.assert_array_equal(theirs, wanted)


def test_a_name_that_leads_nowhere_is_damage(tmp_path):
    save_arrays(tmp_path / "arrays", TREE)
    metadata = tmp_path / "arrays" / "_METADATA"
    metadata.write_text(metadata.read_text().replace('"step"', '"steps"'))
    with pytest.raises(InputError, match="damaged"):
        restore_arrays(tmp_path / "arrays")
