# Copyright (c) monai_ext contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monai_ext.transforms import SeamsBetweenObjectsd

MAPS = arrays(np.int32, st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


@settings(max_examples=100, deadline=None)
@given(objects=MAPS, width=st.integers(1, 2))
def test_a_pixel_stays_where_no_other_object_is_near(objects, width):
    mask = torch.from_numpy((objects > 0).astype(np.float32))
    item = {"label": mask.clone(), "objects": objects}
    found = SeamsBetweenObjectsd(keys="label", instances_key="objects", width=width)(item)["label"]
    for _, y, x in np.ndindex(*objects.shape):
        near = objects[0, max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
        own = objects[0, y, x]
        assert bool(found[0, y, x]) == (own > 0 and set(np.unique(near)) <= {0, own})
    assert torch.equal(item["label"], mask)


def test_the_metadata_of_the_mask_stay():
    from monai.data import MetaTensor

    mask = MetaTensor(torch.ones(1, 4, 4), meta={"filename_or_obj": "a.png"})
    objects = torch.tensor([[1, 1, 2, 2]] * 4)[None]
    found = SeamsBetweenObjectsd(keys="label", instances_key="objects")({"label": mask, "objects": objects})["label"]
    assert found.meta["filename_or_obj"] == "a.png" and found.sum() == 8


@pytest.mark.parametrize(
    ("width", "shape", "words"),
    [(0, (1, 4, 4), "width must be at least 1"), (1, (1, 4, 5), "'label' must have the shape of 'objects'")],
)
def test_what_does_not_fit(width, shape, words):
    item = {"label": torch.ones(shape), "objects": torch.ones(1, 4, 4, dtype=torch.int32)}
    with pytest.raises(ValueError, match=words):
        SeamsBetweenObjectsd(keys="label", instances_key="objects", width=width)(item)
