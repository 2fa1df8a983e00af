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


"""What a click costs: the first one opens the image, later ones find it encoded."""

from __future__ import annotations

from collections.abc import Callable

from .compare import Benchmark, Bound, Figures, Settings, seconds_of


def click(variant: str, settings: Settings) -> Callable[[], Figures]:
    """From the click to the mask at the size of the image."""
    import torch

    from monai_ext.networks import SAM2Segmenter

    torch.set_num_threads(settings.threads)
    network = SAM2Segmenter(size="micro" if settings.quick else "tiny").eval().requires_grad_(False)
    side = 64 if settings.quick else 1024
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[[side / 2, side / 2], [side / 4, side / 4]]])
    kinds = torch.ones(1, 2)
    embedding = network.encode(image)

    def answer() -> object:
        if variant == "first":
            return network(image, points[:, :1], kinds[:, :1])
        return network.decode(embedding, points, kinds)

    answer()
    return lambda: {"seconds": seconds_of(answer)}


BENCHMARKS = {
    "clicks": Benchmark(
        title="Second click on an open image against the first: tiny, 1024 px",
        variants=("first", "second"),
        prepare=click,
        processes=2,
        bounds=(Bound("seconds", "second", 0.1, against="first"),),
    )
}
